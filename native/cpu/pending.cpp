#include "../core/ops.hpp"
namespace spr2q { namespace ops {
#define D(op,A) void op(const A&);
SPR2Q_OPS(D)
} namespace SPR2Q_ISA {
#define W(op,A) __attribute__((weak)) void op(const A& a){ ops::op(a); }
SPR2Q_OPS(W)
}}
