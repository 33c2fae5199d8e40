// Which tiers can be made while items still arrive: a layer's, as far as its keys are there without a gap.
#ifndef SALAMANDER_DECODE_WORKER_TIER_PROGRESS_H_
#define SALAMANDER_DECODE_WORKER_TIER_PROGRESS_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "common/stream/item.h"
#include "common/stream/manifest.h"
#include "salamander/v1/stream.pb.h"

namespace salamander::decode {

class TierProgress {
 public:
  // `plan` outlives it.
  TierProgress(const v1::Plan* plan, const stream::LayerKinds& sparse);

  // One layer's tiers reach `tokens` tokens.
  struct Piece {
    int64_t layer = 0;
    int64_t tokens = 0;
  };
  // The next piece to make: one span of one layer, so that a decode step waits for little. Nothing if all that has
  // arrived is done.
  std::optional<Piece> Next(const std::function<bool(const stream::ItemId&)>& has);
  // The piece that Next returned last is made.
  void Advance();

 private:
  struct Layer {
    int64_t layer = 0;
    int32_t spans = 0;  // done
  };
  const v1::Plan* plan_;
  std::vector<Layer> layers_;
  size_t next_ = 0;  // where to look first, so that layers take turns
};

}  // namespace salamander::decode

#endif  // SALAMANDER_DECODE_WORKER_TIER_PROGRESS_H_
