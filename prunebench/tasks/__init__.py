"""Task families, one module each: they load and tokenise data, and own the loss, the output heads and the metrics."""
