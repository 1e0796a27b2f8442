"""One kernel feature, one file; none imports another."""
