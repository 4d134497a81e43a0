"""One verb, one module; imported when it is called and not before."""
