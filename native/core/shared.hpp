// Functions that every room must compute alike, to the last bit, are written once in core/ and
// marked SPR2Q_SHARED: `static inline`, since a header is compiled once per instruction set and
// nothing of it may be shared by the linker, and for the device too where nvcc reads it.
#pragma once

#if defined(__CUDACC__)
#define SPR2Q_BOTH __host__ __device__
#else
#define SPR2Q_BOTH
#endif
#define SPR2Q_SHARED static inline SPR2Q_BOTH
