// Where the tokens of a (shifted) attention window lie, and which pairs of them may see each other.
// Windows are numbered row-major within a sample, samples one after the other; positions inside a
// window row-major: p = y * window + x. Shifting rolls the image by -shift in both axes, so rolled
// row r shows image row (r + shift) mod height; nothing is ever copied for it.
#pragma once
#include <cstdint>

#include "shared.hpp"

namespace spr2q {

// Added to the logits of pairs that only the roll made neighbours; finite, as the network was
// trained (a wholly masked row would still be a distribution).
constexpr float kWindowMask = -100.0f;

struct Windows {
  int64_t height, width, window, shift;

  SPR2Q_BOTH int64_t across() const { return width / window; }
  SPR2Q_BOTH int64_t per_sample() const { return (height / window) * across(); }
  SPR2Q_BOTH int64_t positions() const { return window * window; }

  // Row index of a window's position in the (batch*height*width, channels) tensors.
  SPR2Q_BOTH int64_t token(int64_t index, int64_t position) const {
    const int64_t sample = index / per_sample(), place = index % per_sample();
    const int64_t y = (place / across() * window + position / window + shift) % height;
    const int64_t x = (place % across() * window + position % window + shift) % width;
    return (sample * height + y) * width + x;
  }

  // 0 ... 8: the region of the rolled image; pairs with different labels are masked.
  SPR2Q_BOTH int64_t label(int64_t index, int64_t position) const {
    const int64_t place = index % per_sample();
    const int64_t y = place / across() * window + position / window;
    const int64_t x = place % across() * window + position % window;
    return 3 * band(y, height) + band(x, width);
  }

  // True where a window holds more than one label: one in the rolled image's last row or column.
  SPR2Q_BOTH bool masked(int64_t index) const {
    const int64_t place = index % per_sample();
    return shift > 0 &&
           (place / across() == height / window - 1 || place % across() == across() - 1);
  }

  // Row of the relative bias table for a query at position p and a key at position j.
  SPR2Q_BOTH int64_t bias_row(int64_t p, int64_t j) const {
    const int64_t dy = p / window - j / window, dx = p % window - j % window;
    return (dy + window - 1) * (2 * window - 1) + dx + window - 1;
  }

 private:
  SPR2Q_BOTH int64_t band(int64_t rolled, int64_t extent) const {
    return rolled < extent - window ? 0 : rolled < extent - shift ? 1 : 2;
  }
};

}  // namespace spr2q
