// The backend boundary: one table of function pointers per backend, filled from the op list of
// ops.hpp. A table is plain C data, so a test or a script can call it without Node. Backends on
// the CPU: "reference" (native/ops, readable, double precision inside where it matters), and the
// fast ones of native/cpu compiled once per instruction set: "portable"; "avx2" and "avx512";
// "neon" and "neon_dotprod".
#pragma once
#include "ops.hpp"

namespace spr2q {

constexpr uint32_t kBackendAbiVersion = 1;

struct Backend {
  uint32_t abi_version;
  const char* name;
#define SPR2Q_MEMBER(op, Args) void (*op)(const Args&);
  SPR2Q_OPS(SPR2Q_MEMBER)
#undef SPR2Q_MEMBER
};

// The reference table: complete by construction.
const Backend& reference_backend();

// The table called `name`, or nullptr where this machine or build lacks it.
const Backend* find_backend(const char* name);

// Names of the tables that this machine can run, best first; returns how many were written.
int list_backends(const char** names, int capacity);

}  // namespace spr2q
