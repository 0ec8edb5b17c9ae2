"""The policy as a denoising chain, and who samples from it."""
