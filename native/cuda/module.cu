// The two tables and the one exported function.
#include "runtime.hpp"

namespace spr2q {
namespace cuda {
#define SPR2Q_DECLARE(op, Args) void op(const Args&);
SPR2Q_OPS(SPR2Q_DECLARE)
#undef SPR2Q_DECLARE

const Backend* module_backend() {
  static const Backend table = {
      kBackendAbiVersion, services().memory_kind == kHostMemory ? "cuda-shim" : "cuda",
#define SPR2Q_ENTRY(op, Args) op,
      SPR2Q_OPS(SPR2Q_ENTRY)
#undef SPR2Q_ENTRY
  };
  return &table;
}

}  // namespace cuda
}  // namespace spr2q

extern "C" __attribute__((visibility("default"))) const spr2q::CudaModule* spr2q_cuda_module() {
  static const spr2q::CudaModule module = {
      spr2q::kCudaAbiVersion,       spr2q::kBackendAbiVersion,
      sizeof(spr2q::Backend),       sizeof(spr2q::CudaServices),
      spr2q::cuda::module_backend(),      &spr2q::cuda::services(),
  };
  return &module;
}
