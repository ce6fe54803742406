// Marks functions that host and device code share; empty for a plain C++ compiler.
#pragma once

#ifdef __CUDACC__
#define SMORE_HOST_DEVICE __host__ __device__
#else
#define SMORE_HOST_DEVICE
#endif
