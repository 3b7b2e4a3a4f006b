"""One detector a file; `registry` lists them."""
