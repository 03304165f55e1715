"""Between a network and its images: the denoiser, its loss, and the ODE samplers."""
