"""Point-cloud operators, each with a C++ body for the CPU and a CUDA body for the GPU. None is built yet: see `perception doctor`."""

__all__: list[str] = []
