// libFuzzer over frozen plans: bytes become a list of calls whose views lie in the arena, the input,
// the output, constants and tiles, a few entries of it are then spoilt, and what build() accepts is
// run. Half of the lists are made so that check() accepts each call; the others are any numbers.
#include "bytes.hpp"

#include "../../../native/core/pool.hpp"
#include "../../../native/engine/plan.hpp"

namespace spr2q {
namespace {

constexpr int64_t kArena = 1 << 16, kInput = 1024, kOutput = 2048;
constexpr int64_t kMostCalls = 6;

const std::vector<const Backend*>& tables() {
  static const std::vector<const Backend*> all = [] {
    set_thread_count(2);  // tiles of a segment run side by side
    const char* names[8];
    const int count = list_backends(names, 8);
    std::vector<const Backend*> found;
    for (int i = 0; i < count; ++i) found.push_back(find_backend(names[i]));
    return found;
  }();
  return all;
}

// An entry that no honest list holds.
double odd_entry(Bytes& bytes) {
  static const double kOdd[] = {std::numeric_limits<double>::quiet_NaN(),
                                std::numeric_limits<double>::infinity(),
                                -std::numeric_limits<double>::infinity(),
                                1e300, -1e300, 0.5, -0.0, 9007199254740992.0, 9007199254740994.0,
                                -9007199254740992.0, 4294967296.0, 2147483648.0, -3.0, 70368744177664.0};
  const uint8_t kind = bytes.byte();
  if (kind < 128) return static_cast<double>(bytes.number());
  return kOdd[kind % (sizeof kOdd / sizeof *kOdd)];
}

class ListMaker {
 public:
  ListMaker(Bytes& bytes, int64_t constants) : bytes_(bytes), constants_(constants) {}

  std::vector<double> make() {
    const int64_t count = 1 + bytes_.below(kMostCalls);
    for (int64_t i = 0; i < count && !bytes_.empty(); ++i) {
      if (bytes_.byte() < 80) segment();
      else call(0);
    }
    for (int64_t spoilt = bytes_.below(4); spoilt > 0 && !list_.empty(); --spoilt) {
      const size_t at = (static_cast<size_t>(bytes_.byte()) << 8 | bytes_.byte()) % list_.size();
      list_[at] = odd_entry(bytes_);
    }
    return list_;
  }

 private:
  void segment() {
    const int64_t calls = 1 + bytes_.below(3), rows = 1 + bytes_.below(64);
    const int64_t tile_rows = 1 + bytes_.below(rows), exports = bytes_.below(3);
    const int64_t tile_bytes = bytes_.byte() * 64;
    for (int64_t entry : {int64_t{-1}, calls, rows, tile_rows, tile_bytes, exports}) push(entry);
    for (int64_t i = 0; i < exports; ++i) {
      push(bytes_.below(64));
      push(bytes_.byte() * 16);
      push(1 + bytes_.below(16));
    }
    for (int64_t i = 0; i < calls; ++i) call(rows);
  }

  void push(int64_t entry) { list_.push_back(static_cast<double>(entry)); }

  void call(int64_t rows) {
    const int64_t wanted = bytes_.byte();
    int64_t index = 0;
#define SPR2Q_FUZZ(op, Args) \
    if (index++ == wanted) encode<Args>(wanted, rows);
    SPR2Q_OPS(SPR2Q_FUZZ)
#undef SPR2Q_FUZZ
  }

  template <class Args>
  void encode(int64_t wanted, int64_t rows) {
    Args args;
    Fields fields(bytes_);
    args.visit(fields);
    shrink_views(args, fields.views, bytes_);
    const int64_t tiled = rows ? rows : 1;
    push(wanted);
    const size_t head = list_.size();
    push(-1);
    push(-1);
    field_ = 0;
    Writer writer{*this, tiled, rows > 0};
    args.visit(writer);
    // Which entry counts rows, and which names the first, is any.
    if (rows && bytes_.byte() < 200) list_[head] = static_cast<double>(bytes_.below(field_ + 1));
    if (rows && bytes_.byte() < 30) list_[head + 1] = static_cast<double>(bytes_.below(field_ + 1));
  }

  struct Writer {
    ListMaker& maker;
    int64_t rows;
    bool in_segment;
    template <class... Types>
    void fields(const char*, Types&... values) {
      (put(values), ...);
    }
    void put(int64_t& number) {
      ++maker.field_;
      maker.push(number);
    }
    void put(double& number) {
      ++maker.field_;
      maker.list_.push_back(number);
    }
    void put(F32List&) { maker.push(0); }  // refused wherever it stands
    void put(U8List&) { maker.push(0); }
    void put(Numbers&) { maker.push(0); }
    template <class View>
    void put(View& view) {
      ++maker.field_;
      if (!view.data) {
        for (int64_t entry : {-1, 0, 0, 0}) maker.push(entry);
        return;
      }
      const uint8_t kind = maker.bytes_.byte();
      const int64_t place = in_segment && kind % 3 == 0 ? -2 : kind % (3 + maker.constants_);
      maker.push(place);
      maker.push(maker.bytes_.byte() * 4 % 256);
      maker.push(view.size);
      const bool narrowed = in_segment && maker.bytes_.byte() < 160;
      maker.push(narrowed ? view.size / rows + maker.bytes_.below(2) : 0);
    }
  };

  Bytes& bytes_;
  int64_t constants_;
  int64_t field_ = 0;
  std::vector<double> list_;
};

std::vector<double> any_numbers(Bytes& bytes) {
  std::vector<double> list;
  while (!bytes.empty() && list.size() < 200) list.push_back(odd_entry(bytes));
  return list;
}

}  // namespace
}  // namespace spr2q

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace spr2q;
  Bytes bytes(data, size);
  const Backend& backend = *tables()[static_cast<size_t>(bytes.below(static_cast<int64_t>(tables().size())))];
  Contents contents(bytes);
  // Blocks of their own, so that one byte too far is seen.
  std::vector<std::unique_ptr<float[]>> owned;
  std::vector<Block> constants;
  for (int64_t i = bytes.below(3); i >= 0; --i) {
    const int64_t floats = 1 + bytes.byte();
    owned.emplace_back(new float[static_cast<size_t>(floats)]);
    if (i & 1) contents.fill(reinterpret_cast<uint8_t*>(owned.back().get()), floats * 4);
    else contents.fill(owned.back().get(), floats);
    constants.push_back({reinterpret_cast<uint8_t*>(owned.back().get()), floats * 4});
  }
  const uint8_t sizes = bytes.byte();
  int64_t arena = kArena, input = kInput, output = kOutput;
  if (sizes >= 250) arena = bytes.number();
  if (sizes == 249) input = bytes.number();
  if (sizes == 248) output = bytes.number();
  const std::vector<double> list = (sizes & 1) ? ListMaker(bytes, static_cast<int64_t>(constants.size())).make()
                                               : any_numbers(bytes);
  Plan plan;
  const std::string problem = plan.build(backend, list.data(), static_cast<int64_t>(list.size()), constants,
                                         arena, input, output);
  if (!problem.empty() || plan.arena_bytes() > (1 << 20)) return 0;
  if (plan.input_floats() > (1 << 18) || plan.output_floats() > (1 << 18)) return 0;
  std::unique_ptr<float[]> from(new float[static_cast<size_t>(plan.input_floats())]);
  std::unique_ptr<float[]> to(new float[static_cast<size_t>(plan.output_floats())]);
  std::unique_ptr<double[]> seconds(new double[static_cast<size_t>(plan.steps())]);
  contents.fill(from.get(), plan.input_floats());
  plan.run(from.get(), to.get(), nullptr, seconds.get(), bytes.byte());
  return 0;
}
