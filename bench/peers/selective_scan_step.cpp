// The selective scan of the PyTorch training peer, forward and backward, batched: what
// selective_scan.cpp is for inference.
//
//   h_t[d,s] = exp(Δ_t[d] A[d,s]) h_{t-1}[d,s] + Δ_t[d] B_t[s] u_t[d],   Δ = softplus(delta)
//   y_t[d]   = D[d] u_t[d] + Σ_s C_t[s] h_t[d,s]
//
// Shapes, all contiguous fp32: u, delta, y (batch, tokens, 48); b, c (batch, tokens, 8); a (48, 8);
// d_skip (48). Samples are independent, so OpenMP threads take one each. The backward pass runs the
// forward again and keeps every state of the sample (6 MiB for 4096 tokens), then goes back in
// time. Gradients of a and d_skip are summed per sample and added in the order of the samples.

#include <cmath>
#include <cstdint>
#include <vector>

namespace {

constexpr int kChannels = 48;
constexpr int kStates = 8;
constexpr int kLanes = kChannels * kStates;  // state-major: lane s * 48 + d

struct Sample {
  const float *u, *delta, *b, *c;
};

void transpose_rates(const float* a, float* rate) {
  for (int s = 0; s < kStates; ++s) {
    for (int d = 0; d < kChannels; ++d) rate[s * kChannels + d] = a[d * kStates + s];
  }
}

// One step: Δ, the decays, and the new state in place.
void advance(const Sample& x, std::int64_t t, const float* rate, float* step, float* decay,
             float* state) {
  const float* ut = x.u + t * kChannels;
  const float* dt = x.delta + t * kChannels;
#pragma omp simd
  for (int d = 0; d < kChannels; ++d) {
    step[d] = (dt[d] > 0.0f ? dt[d] : 0.0f) + log1pf(expf(-fabsf(dt[d])));
  }
  for (int s = 0; s < kStates; ++s) {
#pragma omp simd
    for (int d = 0; d < kChannels; ++d) {
      decay[s * kChannels + d] = expf(step[d] * rate[s * kChannels + d]);
    }
  }
  for (int s = 0; s < kStates; ++s) {
    const float bs = x.b[t * kStates + s];
#pragma omp simd
    for (int d = 0; d < kChannels; ++d) {
      const int i = s * kChannels + d;
      state[i] = decay[i] * state[i] + bs * step[d] * ut[d];
    }
  }
}

void forward(const Sample& x, const float* rate, const float* d_skip, float* y,
             std::int64_t tokens) {
  alignas(64) float state[kLanes] = {}, decay[kLanes], step[kChannels];
  for (std::int64_t t = 0; t < tokens; ++t) {
    advance(x, t, rate, step, decay, state);
    float* yt = y + t * kChannels;
#pragma omp simd
    for (int d = 0; d < kChannels; ++d) yt[d] = d_skip[d] * x.u[t * kChannels + d];
    for (int s = 0; s < kStates; ++s) {
      const float cs = x.c[t * kStates + s];
#pragma omp simd
      for (int d = 0; d < kChannels; ++d) yt[d] += cs * state[s * kChannels + d];
    }
  }
}

// ga and gd are of this sample; ga is state-major.
void backward(const Sample& x, const float* rate, const float* d_skip, const float* gy, float* gu,
              float* gdelta, float* ga, float* gb, float* gc, float* gd, std::int64_t tokens) {
  std::vector<float> states((tokens + 1) * kLanes, 0.0f), decays(tokens * kLanes),
      steps(tokens * kChannels);
  for (std::int64_t t = 0; t < tokens; ++t) {
    float* now = states.data() + (t + 1) * kLanes;
    for (int i = 0; i < kLanes; ++i) now[i] = now[i - kLanes];
    advance(x, t, rate, steps.data() + t * kChannels, decays.data() + t * kLanes, now);
  }
  alignas(64) float carry[kLanes] = {}, gstep[kChannels], gut[kChannels];
  for (std::int64_t t = tokens - 1; t >= 0; --t) {
    const float* ut = x.u + t * kChannels;
    const float* gyt = gy + t * kChannels;
    const float* step = steps.data() + t * kChannels;
    const float* decay = decays.data() + t * kLanes;
    const float* after = states.data() + (t + 1) * kLanes;
    const float* before = states.data() + t * kLanes;
#pragma omp simd
    for (int d = 0; d < kChannels; ++d) {
      gstep[d] = 0.0f;
      gut[d] = d_skip[d] * gyt[d];
      gd[d] += gyt[d] * ut[d];
    }
    for (int s = 0; s < kStates; ++s) {
      const float bs = x.b[t * kStates + s], cs = x.c[t * kStates + s];
      float sum_b = 0.0f, sum_c = 0.0f;
#pragma omp simd reduction(+ : sum_b, sum_c)
      for (int d = 0; d < kChannels; ++d) {
        const int i = s * kChannels + d;
        const float g = carry[i] + cs * gyt[d];
        const float through = g * before[i] * decay[i];
        sum_c += gyt[d] * after[i];
        sum_b += g * step[d] * ut[d];
        ga[i] += through * step[d];
        gstep[d] += through * rate[i] + g * bs * ut[d];
        gut[d] += g * bs * step[d];
        carry[i] = g * decay[i];
      }
      gb[t * kStates + s] = sum_b;
      gc[t * kStates + s] = sum_c;
    }
#pragma omp simd
    for (int d = 0; d < kChannels; ++d) {
      gu[t * kChannels + d] = gut[d];
      gdelta[t * kChannels + d] = gstep[d] / (1.0f + expf(-x.delta[t * kChannels + d]));
    }
  }
}

}  // namespace

extern "C" void scan_forward(const float* u, const float* delta, const float* a, const float* b,
                             const float* c, const float* d_skip, float* y, std::int64_t batch,
                             std::int64_t tokens, int threads) {
  alignas(64) float rate[kLanes];
  transpose_rates(a, rate);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (std::int64_t n = 0; n < batch; ++n) {
    const std::int64_t wide = n * tokens * kChannels, narrow = n * tokens * kStates;
    forward({u + wide, delta + wide, b + narrow, c + narrow}, rate, d_skip, y + wide, tokens);
  }
}

extern "C" void scan_backward(const float* u, const float* delta, const float* a, const float* b,
                              const float* c, const float* d_skip, const float* gy, float* gu,
                              float* gdelta, float* ga, float* gb, float* gc, float* gd,
                              std::int64_t batch, std::int64_t tokens, int threads) {
  alignas(64) float rate[kLanes];
  transpose_rates(a, rate);
  std::vector<float> sums(batch * (kLanes + kChannels), 0.0f);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (std::int64_t n = 0; n < batch; ++n) {
    const std::int64_t wide = n * tokens * kChannels, narrow = n * tokens * kStates;
    float* sum = sums.data() + n * (kLanes + kChannels);
    backward({u + wide, delta + wide, b + narrow, c + narrow}, rate, d_skip, gy + wide, gu + wide,
             gdelta + wide, sum, gb + narrow, gc + narrow, sum + kLanes, tokens);
  }
  for (int i = 0; i < kLanes; ++i) ga[i] = 0.0f;
  for (int d = 0; d < kChannels; ++d) gd[d] = 0.0f;
  for (std::int64_t n = 0; n < batch; ++n) {
    const float* sum = sums.data() + n * (kLanes + kChannels);
    for (int s = 0; s < kStates; ++s) {
      for (int d = 0; d < kChannels; ++d) ga[d * kStates + s] += sum[s * kChannels + d];
    }
    for (int d = 0; d < kChannels; ++d) gd[d] += sum[kLanes + d];
  }
}
