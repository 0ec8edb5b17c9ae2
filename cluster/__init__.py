"""Running plain classes elsewhere; knows nothing of diffusion."""
