// What kernels' launch code asks of the runtime, free of CUDA's own types: runtime.cu answers. For
// the tests test/cuda/shim stands for the CUDA runtime below it.
#pragma once
#include <vector>

#include "../core/cuda_module.hpp"
#include "../core/plan_code.hpp"

namespace spr2q {
namespace cuda {

// 10 * major + minor of the device in use; 0 after a failure.
int32_t architecture();

// Keeps `code` and its text as this thread's failure unless one is kept already.
void fail(int32_t code, const char* text);
bool failed();

// Scratch of the stream in use: device memory that lives until the op that took it returns (on
// the stream: the next op may reuse it). Construct once per op; an op called by an op goes on
// where its caller stopped. Blocks grow and never move, so a recorded graph keeps its addresses.
class Scratch {
 public:
  Scratch();
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // `count` values on a 256-byte boundary, contents undefined; null after a failure.
  template <class T>
  T* take(int64_t count) {
    return static_cast<T*>(bytes(count * static_cast<int64_t>(sizeof(T))));
  }

 private:
  void* bytes(int64_t count);
};

// `count` counters of the stream in use, zero when a kernel begins: arrives_last() (device.cuh)
// counts blocks in them and leaves zeros again. Every kernel of the stream counts in the same ones,
// one after the other; null after a failure.
unsigned* arrivals(int64_t count);

// What an op makes of constants alone. While a plan runs it lies in memory of the plan, and only the
// first run has to make it (`fresh`); elsewhere it is scratch and always fresh. `from`: all that it
// is made of; null operands count as constant.
struct Kept {
  void* data;
  bool fresh;
};
Kept keep(Scratch& scratch, int64_t bytes, const std::vector<const void*>& from);
// True where keep() keeps what is made of `from`: in a plan, of its constants.
bool keeps(const std::vector<const void*>& from);

// A plan's memory for that, in the order of its calls. The first run that ends well makes it.
struct KeptBlocks {
  std::vector<void*> blocks;
  size_t next = 0;                       // of the run under way
  bool made = false;                     // by an earlier run
  const std::vector<Block>* constants;   // of the plan
};
// Where ops of this thread keep what they make; null: nowhere.
void use_kept_blocks(KeptBlocks* blocks);

// The code of the failure that is kept, which stays kept.
int32_t pending_failure();

// Where the route kernels of this thread read what is added to the number of their tile; null: 0.
void use_noise_cell(const int64_t* cell);
const int64_t* noise_cell();

const Backend* module_backend();
const CudaServices& services();
int32_t merge_pack_create(const MergePackLayer* layers, int64_t count, void** plan);
int32_t merge_pack_run(void* plan);
int32_t merge_pack_destroy(void* plan);
int32_t plan_create(const CudaPlanDescription* description, void** plan);
int32_t plan_run(void* plan, const float* input, float* output, int64_t noise_tile);
int32_t plan_run_device(void* plan, const float* input, float* output, int64_t noise_tile);
int32_t plan_destroy(void* plan);

}  // namespace cuda
}  // namespace spr2q
