// See bit_choice.hpp. Only AVX-512 has both kernels.
#include "bit_choice.hpp"

#if defined(__AVX512F__)

#include <time.h>

#include "simd.hpp"

namespace spr2q {
namespace SPR2Q_ISA {

void pack_coded_linear(const PackCodedLinear&);
void fused_coded_linear(const FusedCodedLinear&);

namespace {

constexpr int kMostShapes = 64;  // later ones count: a network has about ten
constexpr int64_t kRows = 256;   // of a trial, which takes some ten microseconds
constexpr int kTrials = 15;      // of which the shortest counts

struct Answer {
  int64_t in, out;
  bool counting;
};
Answer answers[kMostShapes];
int answer_count = 0;
bool locked = false;
thread_local int forced = -1;  // while this thread times one of the two

class Lock {
 public:
  Lock() {
    while (__atomic_test_and_set(&locked, __ATOMIC_ACQUIRE)) {
    }
  }
  ~Lock() { __atomic_clear(&locked, __ATOMIC_RELEASE); }
};

double seconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Shortest time of a layer with its quantiser, on the kernel that `forced` names. Slots beyond those
// of the ops.
double shortest(int64_t in, int64_t out) {
  enum { kX = 9, kWeight, kPacked, kFloats, kCodes };
  const int64_t packed_bytes = packed_coded_linear_bytes(in, out);
  const U8 x = {scratch<uint8_t>(kX, kRows * in), kRows * in};
  const U8 weight = {scratch<uint8_t>(kWeight, out * in), out * in};
  const U8 packed = {scratch<uint8_t>(kPacked, packed_bytes), packed_bytes};
  const U8 codes = {scratch<uint8_t>(kCodes, kRows * out), kRows * out};
  for (int64_t i = 0; i < x.size; ++i) x.data[i] = static_cast<uint8_t>(i * 7 % 13 & 1);
  for (int64_t i = 0; i < weight.size; ++i) weight.data[i] = static_cast<uint8_t>(i * 5 % 11 & 1);
  float* bounds = scratch<float>(kFloats, 2);
  bounds[0] = -1.0f;
  bounds[1] = 1.0f;
  const F32 low = {bounds, 1}, high = {bounds + 1, 1}, none = {nullptr, 0};
  const U8 no_codes = {nullptr, 0};
  pack_coded_linear({weight, low, high, low, high, none, packed, in, out, 1, 1, kTensor, kTensor, 8});
  double best = 1e9;
  for (int trial = 0; trial < kTrials; ++trial) {
    const double began = seconds();
    fused_coded_linear({x, packed, none, none, none, none, none, none, low, high, codes, none, none,
                        no_codes, kRows, in, out, 1, 1, 0, 0, 0, 1, kTensor, 1, kTensor, 0, 1.0});
    const double took = seconds() - began;
    best = took < best ? took : best;
  }
  return best;
}

}  // namespace

bool counting_is_faster(int64_t in, int64_t out) {
  if (forced >= 0) return forced == 1;
  const Lock lock;
  for (int i = 0; i < answer_count; ++i) {
    if (answers[i].in == in && answers[i].out == out) return answers[i].counting;
  }
  if (answer_count == kMostShapes || out > FusedCodedLinear::kMostFused) return true;
  forced = 1;
  const double counting = shortest(in, out);
  forced = 0;
  const double multiplying = shortest(in, out);
  forced = -1;
  answers[answer_count++] = {in, out, counting <= multiplying};
  return counting <= multiplying;
}

}  // namespace SPR2Q_ISA
}  // namespace spr2q

#endif  // __AVX512F__
