"""Which matrix library this process multiplies with, for the label of a row."""

NAMES = (("mkl", "MKL"), ("openblas", "OpenBLAS"), ("blis", "BLIS"))


def blas_name():
    """From the libraries that are mapped; call it after a matrix product."""
    try:
        with open("/proc/self/maps", encoding="utf-8") as maps:
            paths = {line[line.index("/"):].strip() for line in maps if "/" in line}
    except OSError:
        return "its own BLAS"
    # Debian's libblas.so.3 is one of several libraries, by its folder. LAPACK may map another one
    # beside it, which multiplies nothing here.
    for path in paths:
        if path.rsplit("/", 1)[-1].startswith("libblas.so"):
            return "OpenBLAS" if "openblas" in path else "reference BLAS"
    for part, name in NAMES:
        if any(part in path.rsplit("/", 1)[-1] for path in paths):
            return name
    return "its own BLAS"
