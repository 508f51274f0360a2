// Which of two kernels a 1-bit linear layer runs on: AND and popcount (bit_linear.hpp) or the dot
// products of wider codes, whose values stay in registers for what follows. No rule tells which is
// faster for a shape on a machine, so both are timed once, when a layer of that shape is packed, and
// the answer is kept: packing and running must agree.
#pragma once
#include <cstdint>

namespace spr2q {
namespace SPR2Q_ISA {

// True where counting ones was faster for `in` inputs and `out` outputs.
bool counting_is_faster(int64_t in, int64_t out);

}  // namespace SPR2Q_ISA
}  // namespace spr2q
