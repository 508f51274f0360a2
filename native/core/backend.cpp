// Which tables exist in this build and which of them this machine can run.
#include "backend.hpp"

#include <cstring>

#include "cuda_library.hpp"

#if defined(SPR2Q_HAVE_X86)
#include <cpuid.h>
#elif defined(SPR2Q_HAVE_NEON) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#elif defined(SPR2Q_HAVE_NEON) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace spr2q {

#if defined(SPR2Q_HAVE_X86)
namespace avx512 { const Backend& backend(); }
namespace avx2 { const Backend& backend(); }
#endif
#if defined(SPR2Q_HAVE_NEON)
namespace neon { const Backend& backend(); }
namespace neon_dotprod { const Backend& backend(); }
#endif
namespace portable { const Backend& backend(); }

namespace {

#if defined(SPR2Q_HAVE_X86)
// Clang 14's __builtin_cpu_supports does not know the name.
bool has_f16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

bool has_avx2() {
#if defined(SPR2Q_HAVE_X86)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
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

// NEON itself belongs to every machine of 64 bits.
bool has_neon() {
#if defined(SPR2Q_HAVE_NEON)
  return true;
#else
  return false;
#endif
}

// udot: products of bytes, added four by four (ARMv8.2, mandatory from 8.4).
bool has_dotprod() {
#if defined(SPR2Q_HAVE_NEON) && defined(__linux__)
  return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
#elif defined(SPR2Q_HAVE_NEON) && defined(__APPLE__)
  int has = 0;
  size_t bytes = sizeof(has);
  return !sysctlbyname("hw.optional.arm.FEAT_DotProd", &has, &bytes, nullptr, 0) && has;
#else
  return false;
#endif
}

}  // namespace

int list_backends(const char** names, int capacity) {
  int count = 0;
  if (has_avx512() && count < capacity) names[count++] = "avx512";
  if (has_avx2() && count < capacity) names[count++] = "avx2";
  if (has_dotprod() && count < capacity) names[count++] = "neon_dotprod";
  if (has_neon() && count < capacity) names[count++] = "neon";
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
#if defined(SPR2Q_HAVE_NEON)
  if (!std::strcmp(name, "neon_dotprod")) return has_dotprod() ? &neon_dotprod::backend() : nullptr;
  if (!std::strcmp(name, "neon")) return &neon::backend();
#endif
  const Backend* cuda = host_cuda_backend();
  if (cuda && !std::strcmp(name, cuda->name)) return cuda;
  if (!std::strcmp(name, "portable")) return &portable::backend();
  if (!std::strcmp(name, "reference")) return &reference_backend();
  return nullptr;
}

}  // namespace spr2q
