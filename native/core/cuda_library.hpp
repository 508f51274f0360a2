// The CUDA backend as the CPU addon sees it: a shared library opened at run time, checked, and
// asked for its devices. Nothing here needs CUDA at build time, and a machine without it only gets
// another answer.
#pragma once
#include <string>
#include <vector>

#include "cuda_module.hpp"

namespace spr2q {

struct CudaStatus {
  std::string code = "ERR_CUDA_NO_LIBRARY";  // "OK" where at least one device can be used
  std::string text = "no CUDA library was opened";
  const CudaModule* module = nullptr;  // set where the library fits this build, usable or not
  std::vector<CudaDevice> devices;
};

// Opens the library; a good one stays open for the life of the process.
CudaStatus open_cuda_library(const char* path);

// The table of the last opened library whose memory is host memory, or nullptr: what runs on device
// pointers is no backend for arrays of JavaScript.
const Backend* host_cuda_backend();

// The last opened library with a device that can be used, or nullptr.
const CudaModule* usable_cuda_module();

// Failure of the last op on that table, as "ERR_...: text"; empty where there is none.
std::string host_cuda_failure();

}  // namespace spr2q
