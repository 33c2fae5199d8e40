// Stage 1 as tasks: tiles of up to 16 tokens of one block for a prompt, ranges of pages for single tokens.
#include <algorithm>

#include "kernels/cpu/block_heap.h"
#include "kernels/cpu/block_plan.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/task_views.h"

namespace salamander::kernels {
namespace {

constexpr int64_t kRangeBlocks = kRangePages * kPageBlocks;

int64_t CoarsePages(int64_t position) { return (K2Count(position + 1) + kPageK2 - 1) / kPageK2; }
int64_t CoarseRanges(int64_t position) { return (CoarsePages(position) + kRangePages - 1) / kRangePages; }

// One tile or token, and one key/value head.
struct Item {
  SelectTask task;
  BlockPlan plan;
  int32_t* out;         // of the first row
  int64_t out_stride;   // from row to row
  int64_t first_range;  // single tokens: where its ranges lie among all
  int64_t first_value;  // likewise, values of competing blocks
};

// Stage 1 of a tile on one thread.
void SelectTile(const KernelTable& kernels, const Item& item, Scratch& memory) {
  const SelectTask& task = item.task;
  const int64_t columns = SelectColumns(task.group), places = item.plan.places, dim = task.kv.dim;
  float* packed = memory.Get(columns * (dim + 4) + 2 * kSelectTokens * places + SelectScratch(task.group));
  float* most = packed + columns * dim;
  float *sum = most + columns, *range_most = sum + columns, *range_sum = range_most + columns;
  auto* keys = reinterpret_cast<uint64_t*>(range_sum + columns);
  float* scratch = range_sum + columns + 2 * kSelectTokens * places;

  kernels.select_pack(task, packed);
  const int64_t pages = CoarsePages(task.position + task.rows - 1);
  kernels.select_coarse(task, packed, 0, std::min(pages, kRangePages), most, sum, scratch);
  for (int64_t page = kRangePages; page < pages; page += kRangePages) {
    kernels.select_coarse(task, packed, page, std::min(pages, page + kRangePages), range_most, range_sum, scratch);
    kernels.select_combine(columns, range_most, range_sum, most, sum);
  }
  BlockHeap heaps[kSelectTokens];
  for (int64_t r = 0; r < task.rows; ++r) heaps[r] = {keys + r * places, 0, static_cast<int32_t>(places)};
  kernels.select_fine(task, packed, most, sum, item.plan.begin, item.plan.end, heaps, OfferToHeap, scratch);
  for (int64_t r = 0; r < task.rows; ++r) item.plan.Write(heaps[r], item.out + r * item.out_stride);
}

// Stage 1 of single tokens, each spread over ranges of pages: first the log-sum-exps, then the blocks' values, then the
// choice.
class SingleTokens {
 public:
  SingleTokens(const KernelTable& kernels, ForkJoin& pool, std::vector<Scratch>& scratch, std::vector<Item>& items)
      : kernels_(kernels),
        pool_(pool),
        scratch_(scratch),
        items_(items),
        group_(items[0].task.group),
        token_scratch_(TokenScratchFloats(group_, items[0].task.kv.dim)) {
    int64_t values = 0;
    for (Item& item : items_) {
      item.first_range = static_cast<int64_t>(coarse_.size());
      item.first_value = values;
      for (int64_t r = 0; r < CoarseRanges(item.task.position); ++r) coarse_.push_back({&item, r});
      for (int64_t b = item.plan.begin; b < item.plan.end; b += kRangeBlocks) fine_.push_back({&item, b});
      values += item.plan.end - item.plan.begin;
    }
    most_.resize(coarse_.size() * group_);
    sum_.resize(most_.size());
    values_.resize(values);
  }

  void Run() {
    pool_.Run(coarse_.size(), [&](int64_t i, int thread) { Coarse(*coarse_[i].item, coarse_[i].at, thread); });
    pool_.Run(fine_.size(), [&](int64_t i, int thread) { Fine(*fine_[i].item, fine_[i].at, thread); });
    pool_.Run(items_.size(), [&](int64_t i, int thread) { Choose(items_[i], thread); });
  }

 private:
  struct Piece {
    const Item* item;
    int64_t at;  // range, or first block
  };

  void Coarse(const Item& item, int64_t range, int thread) {
    const int64_t page = range * kRangePages, pages = CoarsePages(item.task.position);
    const int64_t at = (item.first_range + range) * group_;
    kernels_.token_coarse(item.task, page, std::min(pages, page + kRangePages), &most_[at], &sum_[at],
                          scratch_[thread].Get(token_scratch_));
  }

  void Fine(const Item& item, int64_t block, int thread) {
    float* scratch = scratch_[thread].Get(token_scratch_ + 2 * group_);
    float *most = scratch + token_scratch_, *sum = most + group_;
    // Every piece combines all ranges for itself, in the same order.
    const int64_t at = item.first_range * group_, ranges = CoarseRanges(item.task.position);
    std::fill(most, sum, 0.0f);
    std::fill(sum, sum + group_, 0.0f);
    if (ranges > 0) {
      std::copy_n(&most_[at], group_, most);
      std::copy_n(&sum_[at], group_, sum);
    }
    for (int64_t r = 1; r < ranges; ++r) {
      kernels_.select_combine(group_, &most_[at + r * group_], &sum_[at + r * group_], most, sum);
    }
    kernels_.token_values(item.task, most, sum, block, std::min(item.plan.end, block + kRangeBlocks),
                          &values_[item.first_value + block - item.plan.begin], scratch);
  }

  void Choose(const Item& item, int thread) {
    auto* keys = reinterpret_cast<uint64_t*>(scratch_[thread].Get(2 * item.plan.places));
    BlockHeap heap = {keys, 0, static_cast<int32_t>(item.plan.places)};
    const float* values = &values_[item.first_value];
    float to_beat = -1;
    for (int64_t b = item.plan.begin; b < item.plan.end; ++b) {
      const float value = values[b - item.plan.begin];
      if (value > to_beat) to_beat = OfferToHeap(heap, value, static_cast<int32_t>(b));
    }
    item.plan.Write(heap, item.out);
  }

  const KernelTable& kernels_;
  ForkJoin& pool_;
  std::vector<Scratch>& scratch_;
  std::vector<Item>& items_;
  int64_t group_, token_scratch_;
  std::vector<Piece> coarse_, fine_;
  std::vector<float> most_, sum_;  // [ranges][group]
  std::vector<float> values_;      // of all items' competing blocks
};

}  // namespace

absl::Status CpuOps::SelectBlocks(const SparseShape& shape, const Matrix& q, absl::Span<const SparseRows> sequences,
                                  int32_t* blocks) {
  const OpClock::Scope timing(clock_, OpKind::kSelectBlocks);
  if (absl::Status status = CheckSparseShape(shape); !status.ok()) return status;
  const int64_t dim = shape.kv.head_dim, kv_heads = shape.kv.kv_heads, group = shape.heads / kv_heads;
  std::vector<Item> tiles, singles;
  for (const SparseRows& seq : sequences) {
    for (int64_t begin = 0, end; begin < seq.rows; begin = end) {
      const int64_t position = seq.position + begin, row = seq.row + begin;
      end = std::min(seq.rows, begin + kSelectTokens - position % kSelectTokens);
      const BlockPlan plan(shape, position);
      for (int64_t head = 0; head < kv_heads; ++head) {
        int32_t* out = blocks + (row * kv_heads + head) * shape.top_blocks;
        const int64_t out_stride = kv_heads * shape.top_blocks;
        if (!plan.contested()) {
          for (int64_t r = 0; r < end - begin; ++r) plan.Write({}, out + r * out_stride);
          continue;
        }
        const SelectTask task = {.kv = PagesOf(shape.kv, seq.pages, head),
                                 .group = group,
                                 .rows = end - begin,
                                 .position = position,
                                 .q = HeadRows(q, row, head * group, dim)};
        (seq.rows == 1 ? singles : tiles).push_back({task, plan, out, out_stride, 0, 0});
      }
    }
  }
  pool_.Run(tiles.size(), [&](int64_t i, int thread) { SelectTile(kernels_, tiles[i], scratch_[thread]); });
  if (!singles.empty()) SingleTokens(kernels_, pool_, scratch_, singles).Run();
  return absl::OkStatus();
}

}  // namespace salamander::kernels
