"""Parts of the benchmark `blockwise`: each has `measure(mode, out)`."""
