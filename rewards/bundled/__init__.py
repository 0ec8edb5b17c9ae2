"""Two small models that judge pictures of the bundled generator, and the scripts that made them."""
