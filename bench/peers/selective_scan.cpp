// The selective scan of MambaIRv2-light for the PyTorch peer: the one operation of the network
// that PyTorch has no compiled kernel for on the CPU.
//
//   h_t[d,s] = exp(Δ_t[d] A[d,s]) h_{t-1}[d,s] + Δ_t[d] B_t[s] u_t[d],   Δ = softplus(delta)
//   y_t[d]   = D[d] u_t[d] + Σ_s C_t[s] h_t[d,s]
//
// Shapes, all contiguous fp32: u, delta, y (tokens, 48); b, c (tokens, 8); a (48, 8); d_skip (48).
// A plain loop over tokens; OpenMP threads each own a block of channels, because channels are
// independent and tokens are not. States are stored state-major inside a block so that the inner
// loops run over contiguous channels and vectorise (the exponential through glibc's libmvec).

#include <cmath>
#include <cstdint>

namespace {

constexpr int kChannels = 48;
constexpr int kStates = 8;

template <int kBlock>
void scan_block(const float* u, const float* delta, const float* a, const float* b, const float* c,
                const float* d_skip, float* y, std::int64_t tokens, int first) {
  constexpr int kLanes = kBlock * kStates;
  alignas(64) float rate[kLanes];
  alignas(64) float state[kLanes] = {};
  alignas(64) float decay[kLanes];
  alignas(64) float step[kBlock];
  alignas(64) float drive[kBlock];
  alignas(64) float sum[kBlock];
  for (int s = 0; s < kStates; ++s) {
    for (int d = 0; d < kBlock; ++d) rate[s * kBlock + d] = a[(first + d) * kStates + s];
  }
  for (std::int64_t t = 0; t < tokens; ++t) {
    const float* ut = u + t * kChannels + first;
    const float* dt = delta + t * kChannels + first;
#pragma omp simd
    for (int d = 0; d < kBlock; ++d) {
      // max(x, 0) + log1p(exp(-|x|)) is softplus without the overflow branch at 20.
      step[d] = (dt[d] > 0.0f ? dt[d] : 0.0f) + log1pf(expf(-fabsf(dt[d])));
      drive[d] = step[d] * ut[d];
      sum[d] = d_skip[first + d] * ut[d];
    }
    for (int s = 0; s < kStates; ++s) {
#pragma omp simd
      for (int d = 0; d < kBlock; ++d) decay[s * kBlock + d] = step[d] * rate[s * kBlock + d];
    }
#pragma omp simd
    for (int i = 0; i < kLanes; ++i) decay[i] = expf(decay[i]);
    for (int s = 0; s < kStates; ++s) {
      const float bs = b[t * kStates + s];
      const float cs = c[t * kStates + s];
#pragma omp simd
      for (int d = 0; d < kBlock; ++d) {
        const int i = s * kBlock + d;
        state[i] = decay[i] * state[i] + bs * drive[d];
        sum[d] += cs * state[i];
      }
    }
#pragma omp simd
    for (int d = 0; d < kBlock; ++d) y[t * kChannels + first + d] = sum[d];
  }
}

template <int kBlock>
void scan_blocks(const float* u, const float* delta, const float* a, const float* b, const float* c,
                 const float* d_skip, float* y, std::int64_t tokens, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int first = 0; first < kChannels; first += kBlock) {
    scan_block<kBlock>(u, delta, a, b, c, d_skip, y, tokens, first);
  }
}

}  // namespace

// Splits the 48 channels into as few blocks as keep every thread busy.
extern "C" void selective_scan(const float* u, const float* delta, const float* a, const float* b,
                               const float* c, const float* d_skip, float* y, std::int64_t tokens,
                               int threads) {
  if (threads <= 1) {
    scan_blocks<48>(u, delta, a, b, c, d_skip, y, tokens, 1);
  } else if (threads == 2) {
    scan_blocks<24>(u, delta, a, b, c, d_skip, y, tokens, 2);
  } else if (threads == 3) {
    scan_blocks<16>(u, delta, a, b, c, d_skip, y, tokens, 3);
  } else {
    scan_blocks<8>(u, delta, a, b, c, d_skip, y, tokens, threads < 6 ? threads : 6);
  }
}
