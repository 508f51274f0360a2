// libFuzzer over every op of every backend of this machine: bytes become an argument struct, check()
// decides as it does for the addon, and what it accepts runs in arrays that end where check() says
// they may, some of them overlapping.
#include "bytes.hpp"

#include "../../../native/core/pool.hpp"

namespace spr2q {
namespace {

const std::vector<const Backend*>& tables() {
  static const std::vector<const Backend*> all = [] {
    set_thread_count(1);  // the order of events is then that of the bytes
    const char* names[8];
    const int count = list_backends(names, 8);
    std::vector<const Backend*> found;
    for (int i = 0; i < count; ++i) found.push_back(find_backend(names[i]));
    return found;
  }();
  return all;
}

// The arrays of one call, each an allocation of its own.
class Arrays {
 public:
  explicit Arrays(Bytes& bytes) : bytes_(bytes), contents_(bytes) {}

  void allocate(std::vector<ViewField>& views) {
    for (ViewField& view : views) {
      if (!*view.data) continue;
      const int64_t needed = *view.size * view.width;
      *view.data = bytes_.byte() < 24 ? shared(needed, view.width) : nullptr;
      if (*view.data) continue;
      blocks_.emplace_back(new uint8_t[static_cast<size_t>(needed)], needed);
      *view.data = blocks_.back().data.get();
      if (view.width == 1) contents_.fill(static_cast<uint8_t*>(*view.data), *view.size);
      else if (bytes_.byte() & 1) contents_.fill(static_cast<int32_t*>(*view.data), *view.size);
      else contents_.fill(static_cast<float*>(*view.data), *view.size);
    }
  }

 private:
  struct Owned {
    std::unique_ptr<uint8_t[]> data;
    int64_t bytes;
    Owned(uint8_t* owned, int64_t size) : data(owned), bytes(size) {}
  };
  // A place in an earlier array that has room, or null.
  void* shared(int64_t needed, int64_t width) {
    if (blocks_.empty()) return nullptr;
    Owned& block = blocks_[static_cast<size_t>(bytes_.below(static_cast<int64_t>(blocks_.size())))];
    const int64_t offset = bytes_.below(4) * width;
    return offset + needed <= block.bytes ? block.data.get() + offset : nullptr;
  }
  Bytes& bytes_;
  Contents contents_;
  std::vector<Owned> blocks_;
};

template <class Args>
void call(Bytes& bytes, void (*op)(const Args&)) {
  Args args;
  Fields fields(bytes);
  args.visit(fields);
  if (!shrink_views(args, fields.views, bytes)) return;
  Arrays arrays(bytes);
  arrays.allocate(fields.views);
  if (args.check()) return;  // it may refuse arrays for where they lie
  op(args);
}

}  // namespace
}  // namespace spr2q

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace spr2q;
  Bytes bytes(data, size);
  const Backend& backend = *tables()[static_cast<size_t>(bytes.below(static_cast<int64_t>(tables().size())))];
  const int64_t wanted = bytes.byte();
  int64_t index = 0;
#define SPR2Q_FUZZ(op, Args) \
  if (index++ == wanted) call<Args>(bytes, backend.op);
  SPR2Q_OPS(SPR2Q_FUZZ)
#undef SPR2Q_FUZZ
  return 0;
}
