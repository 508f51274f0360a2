// The table of one instruction set. This file and its neighbours are compiled once per set, with
// SPR2Q_ISA naming the namespace (CMakeLists.txt); choosing between the sets happens at run time.
#include "../core/backend.hpp"

namespace spr2q {
namespace SPR2Q_ISA {
#define SPR2Q_DECLARE(op, Args) void op(const Args&);
SPR2Q_OPS(SPR2Q_DECLARE)
#undef SPR2Q_DECLARE

#define SPR2Q_STRING_OF(x) #x
#define SPR2Q_STRING(x) SPR2Q_STRING_OF(x)

const Backend& backend() {
  static const Backend table = {
      kBackendAbiVersion, SPR2Q_STRING(SPR2Q_ISA),
#define SPR2Q_ENTRY(op, Args) op,
      SPR2Q_OPS(SPR2Q_ENTRY)
#undef SPR2Q_ENTRY
  };
  return table;
}

}  // namespace SPR2Q_ISA
}  // namespace spr2q
