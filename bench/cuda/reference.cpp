// The readable references of native/ops (double precision inside) as a library of their own, so
// that bench.py can ask them without Node: bench.py compiles this with native/ops/*.cpp.
#include "../../native/core/backend.hpp"

extern "C" const spr2q::Backend* spr2q_reference() { return &spr2q::reference_backend(); }
