// Which tables exist in this build and which of them this machine can run.
#include "backend.hpp"

#include <cstring>

#include "cuda_library.hpp"

namespace spr2q {

#if defined(SPR2Q_HAVE_X86)
namespace avx512 { const Backend& backend(); }
namespace avx2 { const Backend& backend(); }
#endif
namespace portable { const Backend& backend(); }

namespace {

bool has_avx2() {
#if defined(SPR2Q_HAVE_X86)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c");
#else
  return false;
#endif
}

bool has_avx512() {
#if defined(SPR2Q_HAVE_X86)
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
#else
  return false;
#endif
}

}  // namespace

int list_backends(const char** names, int capacity) {
  int count = 0;
  if (has_avx512() && count < capacity) names[count++] = "avx512";
  if (has_avx2() && count < capacity) names[count++] = "avx2";
  if (count < capacity) names[count++] = "portable";
  if (host_cuda_backend() && count < capacity) names[count++] = host_cuda_backend()->name;
  if (count < capacity) names[count++] = "reference";
  return count;
}

const Backend* find_backend(const char* name) {
#if defined(SPR2Q_HAVE_X86)
  if (!std::strcmp(name, "avx512")) return has_avx512() ? &avx512::backend() : nullptr;
  if (!std::strcmp(name, "avx2")) return has_avx2() ? &avx2::backend() : nullptr;
#endif
  const Backend* cuda = host_cuda_backend();
  if (cuda && !std::strcmp(name, cuda->name)) return cuda;
  if (!std::strcmp(name, "portable")) return &portable::backend();
  if (!std::strcmp(name, "reference")) return &reference_backend();
  return nullptr;
}

}  // namespace spr2q
