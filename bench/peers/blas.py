"""Which matrix library this process has mapped, for the label of a row."""

NAMES = (("openblas", "OpenBLAS"), ("mkl", "MKL"), ("blis", "BLIS"), ("libblas", "reference BLAS"))


def blas_name():
    """The library by its file name; call it after a matrix product, when it has been loaded."""
    try:
        with open("/proc/self/maps", encoding="utf-8") as maps:
            files = {line.split("/")[-1].strip().lower() for line in maps if "/" in line}
    except OSError:
        return "its own BLAS"
    for part, name in NAMES:
        if any(part in file for file in files):
            return name
    return "its own BLAS"
