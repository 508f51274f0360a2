// The table of the readable references.
#include "../core/backend.hpp"

namespace spr2q {
namespace ops {
#define SPR2Q_DECLARE(op, Args) void op(const Args&);
SPR2Q_OPS(SPR2Q_DECLARE)
#undef SPR2Q_DECLARE
}  // namespace ops

const Backend& reference_backend() {
  static const Backend table = {
      kBackendAbiVersion, "reference",
#define SPR2Q_ENTRY(op, Args) ops::op,
      SPR2Q_OPS(SPR2Q_ENTRY)
#undef SPR2Q_ENTRY
  };
  return table;
}

}  // namespace spr2q
