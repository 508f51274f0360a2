// Selective scan, fast: one vector holds kLanes neighbouring channels of one token, and the state
// count of MambaIRv2 (8) keeps its eight state vectors in registers, so that a step has no
// horizontal operation: u, delta, y (batch, length, channels) are read and written as they lie,
// B and C (batch, length, states) are broadcast. The work is split by (batch, vector of channels),
// and each chain is computed by one thread from front to back: same bits on any number of threads.
// Other state counts, the quantised copy of h and the optional output of h run the same loop with
// the state in memory.
#include "scan_math.hpp"

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

constexpr int kMaxStates = 64;  // as SelectiveScan::check

// kStates: the state count, or 0 where it is known at run time only. kPlain: no state_bounds and
// no output of the states.
template <int kStates, bool kPlain>
void scan_lanes(const SelectiveScan& a, int64_t b, int64_t c0, int lanes) {
  const int states = kStates ? kStates : static_cast<int>(a.state_count);
  const StateQuantiser quantiser = state_quantiser(a.state_bounds, a.state_bits);
  VecF h[kStates ? kStates : kMaxStates], rate[kStates ? kStates : kMaxStates];
  load_decays(a.A, c0, lanes, states, kLog2e, rate);
  for (int s = 0; s < states; ++s) h[s] = splat(0.0f);
  const VecF D = load_lanes(a.D.data + c0, lanes);
  const VecF bias = load_lanes(a.delta_bias.data + c0, lanes);
  const int64_t end = (b + 1) * a.length;
  for (int64_t t = b * a.length; t < end; ++t) {
    const int64_t i = t * a.channels + c0;
    const float* B = a.B.data + t * states;
    const float* C = a.C.data + t * states;
    const VecF u = load_lanes(a.u.data + i, lanes);
    const VecF delta = softplus(load_lanes(a.delta.data + i, lanes) + bias);
    const VecF input = delta * u;
    VecF y = D * u;
#pragma GCC unroll 8
    for (int s = 0; s < states; ++s) {
      h[s] = fma(exp2(delta * rate[s]), h[s], input * splat(B[s]));
      VecF seen = h[s];
      if (!kPlain && a.state_bounds) seen = quantiser.value(round_even(quantiser.offset(h[s])));
      y = fma(splat(C[s]), seen, y);
    }
    store_lanes(a.y.data + i, y, lanes);
    if (!kPlain && a.states) {
      for (int s = 0; s < states; ++s) {
        float lane[kLanes];
        store(lane, h[s]);
        for (int k = 0; k < lanes; ++k) a.states.data[(i + k) * states + s] = lane[k];
      }
    }
  }
}

}  // namespace

void selective_scan(const SelectiveScan& a) {
  const int64_t vectors = (a.channels + kLanes - 1) / kLanes;
  parallel_for(a.batch * vectors, 1, [&](int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t c0 = unit % vectors * kLanes;
      const int lanes = static_cast<int>(a.channels - c0 < kLanes ? a.channels - c0 : kLanes);
      const bool plain = !a.state_bounds && !a.states;
      if (a.state_count == 8 && plain) scan_lanes<8, true>(a, unit / vectors, c0, lanes);
      else if (a.state_count == 8) scan_lanes<8, false>(a, unit / vectors, c0, lanes);
      else scan_lanes<0, false>(a, unit / vectors, c0, lanes);
    }
  });
}

}  // namespace SPR2Q_ISA
}  // namespace spr2q
