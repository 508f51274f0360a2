#include "../core/ops.hpp"
#include <cstdlib>
#include <cstdio>
namespace spr2q { namespace ops {
#define W(op,A) __attribute__((weak)) void op(const A&){ std::fputs("pending " #op "\n",stderr); std::abort(); }
SPR2Q_OPS(W)
}}
