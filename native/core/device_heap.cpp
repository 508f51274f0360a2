// See device_heap.hpp.
#include "device_heap.hpp"

#include "cuda_library.hpp"

namespace spr2q {
namespace {

constexpr int64_t kGrain = 512;              // bytes to which small blocks are rounded up
constexpr int64_t kLargeBlock = 1 << 20;     // from here on sizes share an entry more often:
constexpr int64_t kLargeGrain = 128 << 10;   // an eighth of the least of them

int64_t rounded(int64_t bytes) {
  const int64_t grain = bytes < kLargeBlock ? kGrain : kLargeGrain;
  return (bytes > 0 ? bytes + grain - 1 : grain) / grain * grain;
}

thread_local DeviceHeap* heap = nullptr;

}  // namespace

DeviceHeap::~DeviceHeap() {
  const CudaServices& device = *module_.services;
  trim();
  for (const auto& block : blocks_) device.release(reinterpret_cast<void*>(block.first));
  if (stream_) device.stream_destroy(stream_);
  device.use_stream(nullptr);
  failure();  // nobody is left to hear of it
}

bool DeviceHeap::open(int32_t device) {
  const CudaServices& services = *module_.services;
  return services.use_device(device) == kCudaOk && services.stream_create(&stream_) == kCudaOk &&
         services.use_stream(stream_) == kCudaOk;
}

void* DeviceHeap::take(int64_t bytes) {
  const int64_t size = rounded(bytes);
  void* data = nullptr;
  std::vector<void*>& list = free_[size];
  if (!list.empty()) {
    data = list.back();
    list.pop_back();
  } else {
    const CudaServices& device = *module_.services;
    if (device.allocate(&data, size) == kCudaOutOfMemory && counters_.held > counters_.used) {
      failure();  // other sizes hold what this one lacks
      trim();
      device.allocate(&data, size);
    }
    if (!data) return nullptr;
    counters_.held += size;
    ++counters_.fresh;
  }
  ++counters_.taken;
  counters_.used += size;
  if (counters_.used > counters_.peak) counters_.peak = counters_.used;
  blocks_[reinterpret_cast<uintptr_t>(data)] = size;
  return data;
}

bool DeviceHeap::give(void* data) {
  const auto block = blocks_.find(reinterpret_cast<uintptr_t>(data));
  if (block == blocks_.end()) return false;
  counters_.used -= block->second;
  free_[block->second].push_back(data);
  blocks_.erase(block);
  return true;
}

bool DeviceHeap::holds(const void* data, int64_t bytes) const {
  const uintptr_t address = reinterpret_cast<uintptr_t>(data);
  auto block = blocks_.upper_bound(address);
  if (bytes < 0 || block == blocks_.begin()) return false;
  --block;
  const int64_t offset = static_cast<int64_t>(address - block->first);
  return offset <= block->second && bytes <= block->second - offset;
}

bool DeviceHeap::upload(void* device, const void* host, int64_t bytes) {
  ++counters_.uploads;
  counters_.uploaded += bytes;
  return module_.services->copy_in(device, host, bytes) == kCudaOk;
}

bool DeviceHeap::download(void* host, const void* device, int64_t bytes) {
  ++counters_.downloads;
  counters_.downloaded += bytes;
  return module_.services->copy_out(host, device, bytes) == kCudaOk;
}

bool DeviceHeap::copy(void* to, const void* from, int64_t bytes) {
  ++counters_.copies;
  return module_.services->copy(to, from, bytes) == kCudaOk;
}

DeviceCounters DeviceHeap::counters() const {
  DeviceCounters all = counters_;
  module_.services->launches(&all.launches);
  return all;
}

void DeviceHeap::trim() {
  const CudaServices& device = *module_.services;
  device.synchronize();
  for (auto& entry : free_) {
    for (void* data : entry.second) {
      device.release(data);
      counters_.held -= entry.first;
    }
    entry.second.clear();
  }
}

std::string DeviceHeap::failure() {
  const char* text = "";
  const int32_t code = module_.services->last_error(&text);
  return code == kCudaOk ? "" : std::string(cuda_error_name(code)) + ": " + text;
}

DeviceHeap* device_heap() { return heap; }

std::string open_device_heap() {
  if (heap) return "";
  const CudaModule* module = usable_cuda_module();
  if (!module) return "ERR_CUDA_NO_LIBRARY: no usable CUDA library was opened";
  DeviceHeap* opened = new DeviceHeap(*module);
  if (!opened->open(0)) {
    const std::string problem = opened->failure();
    delete opened;
    return problem;
  }
  heap = opened;
  return "";
}

void close_device_heap() {
  delete heap;
  heap = nullptr;
}

}  // namespace spr2q
