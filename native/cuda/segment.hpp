// A segment of a plan: calls that work on each row by itself, all of them in one kernel. See
// segment.cu.
#pragma once
#include "../core/backend.hpp"

namespace spr2q {
namespace cuda {

// Calls through joining_backend() between the two belong to one segment of `rows` rows. They are
// launched by end_segment(), or before a call that cannot join, which is launched by itself.
void begin_segment(int64_t rows);
const Backend* joining_backend();
void end_segment();

}  // namespace cuda
}  // namespace spr2q
