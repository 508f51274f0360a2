// Memory of one GPU for one thread of this process: a caching allocator over the services of the
// CUDA library, and the stream on which that thread's ops run. A block that is given back is handed
// out again at once: what still reads it was queued on the same stream before whatever will write
// it. Nothing here waits for the device but upload(), download() and trim().
#pragma once
#include <map>
#include <string>
#include <vector>

#include "cuda_module.hpp"

namespace spr2q {

struct DeviceCounters {
  int64_t held = 0;         // bytes had from the driver
  int64_t used = 0;         // of them, handed out
  int64_t peak = 0;         // largest `used` so far
  int64_t taken = 0;        // blocks handed out, and of them those the driver had to be asked for
  int64_t fresh = 0;
  int64_t uploads = 0, uploaded = 0;      // copies from the host, and their bytes
  int64_t downloads = 0, downloaded = 0;  // copies to the host: each waits for the stream
  int64_t copies = 0;                     // on the device
  int64_t launches = 0;                   // kernels of this thread
};

class DeviceHeap {
 public:
  explicit DeviceHeap(const CudaModule& module) : module_(module) {}
  ~DeviceHeap();
  DeviceHeap(const DeviceHeap&) = delete;
  DeviceHeap& operator=(const DeviceHeap&) = delete;

  // Chooses the device for this thread and makes its stream; call once, on the thread that uses it.
  bool open(int32_t device);

  // At least `bytes` bytes on a 256-byte boundary, contents undefined; null after a failure.
  void* take(int64_t bytes);
  // False where `data` is no block that take() handed out.
  bool give(void* data);
  // True where all bytes lie in one block that is handed out.
  bool holds(const void* data, int64_t bytes) const;
  bool upload(void* device, const void* host, int64_t bytes);
  bool download(void* host, const void* device, int64_t bytes);
  bool copy(void* to, const void* from, int64_t bytes);
  // Waits for the stream and gives every free block back to the driver.
  void trim();

  const Backend& backend() const { return *module_.backend; }
  DeviceCounters counters() const;
  // "ERR_CUDA_...: text" of the first failure since the last call, or empty.
  std::string failure();

 private:
  const CudaModule& module_;
  void* stream_ = nullptr;
  std::map<uintptr_t, int64_t> blocks_;            // handed out, by address
  std::map<int64_t, std::vector<void*>> free_;     // by size
  DeviceCounters counters_;
};

// The heap of the calling thread; null until open_device_heap().
DeviceHeap* device_heap();
// Opens the heap of the calling thread on device 0 of the last opened library that is of use.
// Empty, or "ERR_CUDA_...: why not".
std::string open_device_heap();
void close_device_heap();

}  // namespace spr2q
