// A prompt split over several workers gives bit for bit what one worker gives: spans run on different sequences, in
// any order their needs allow, with keys, values and states handed over as bytes.
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/engine/forward.h"
#include "tests/common/engine/golden_case.h"

namespace salamander::engine {
namespace {

// Span i runs on worker i mod W; the receiver collects everything, as a decode worker does.
class SplitPrefill {
 public:
  SplitPrefill(GoldenCase& golden, int workers, int64_t span_tokens, uint32_t order_seed)
      : golden_(golden), workers_(workers), order_(order_seed), receiver_(golden.NewSequence()) {
    const absl::Span<const int32_t> prompt = golden.prompt();
    const auto prompt_tokens = static_cast<int64_t>(prompt.size());
    for (int w = 0; w < workers; ++w) {
      sequences_.push_back(golden.NewSequence());
      workspaces_.push_back(*Workspace::Create(*golden.model, golden.ledger, span_tokens));
    }
    for (int64_t begin = 0; begin < prompt_tokens; begin += span_tokens) {
      const size_t worker = spans_.size() % workers;
      activations_.push_back(*SpanActivations::Create(*golden.model, golden.ledger, span_tokens));
      spans_.emplace_back(*sequences_[worker], *workspaces_[worker], *activations_.back(),
                          prompt.subspan(begin, span_tokens), begin, prompt_tokens);
    }
  }

  // Steps a random span whose needs are met until all are finished.
  absl::Status Run() {
    while (true) {
      std::vector<size_t> ready;
      bool finished = true;
      for (size_t i = 0; i < spans_.size(); ++i) {
        finished = finished && spans_[i].phase() == SpanPhase::kFinished;
        if (Ready(i)) ready.push_back(i);
      }
      if (finished) return absl::OkStatus();
      if (ready.empty()) return absl::InternalError("no span can go on");
      const size_t i = ready[std::uniform_int_distribution<size_t>(0, ready.size() - 1)(order_)];
      const SpanPhase phase = spans_[i].phase();
      const int64_t layer = spans_[i].layer();
      RETURN_IF_ERROR(spans_[i].Step());
      Publish(i, phase, layer);
    }
  }

  Sequence& receiver() { return *receiver_; }
  absl::StatusOr<std::vector<float>> LastHidden() const { return spans_.back().LastHidden(); }

 private:
  bool Ready(size_t i) const {
    const SpanForward& span = spans_[i];
    if (span.phase() == SpanPhase::kFinished) return false;
    if (span.phase() == SpanPhase::kProject || i == 0) return true;
    if (!golden_.model->is_sparse(span.layer())) return states_done_.contains({span.layer(), i - 1});
    for (size_t before = 0; before < i; ++before) {
      if (!kv_done_.contains({span.layer(), before})) return false;
    }
    return true;
  }

  void Publish(size_t i, SpanPhase phase, int64_t layer) {
    const SpanForward& span = spans_[i];
    Sequence& own = *sequences_[i % workers_];
    if (phase == SpanPhase::kProject && golden_.model->is_sparse(layer)) {
      for (const auto& other : sequences_) {
        if (other.get() == &own) continue;
        CopyRuns(own.KvBytes(layer, span.begin(), span.end()), other->KvBytes(layer, span.begin(), span.end()));
      }
      CopyRuns(own.KvBytes(layer, span.begin(), span.end()), receiver_->KvBytes(layer, span.begin(), span.end()));
      kv_done_.insert({layer, i});
    }
    if (phase == SpanPhase::kMix && !golden_.model->is_sparse(layer)) {
      Sequence& next = i + 1 < spans_.size() ? *sequences_[(i + 1) % workers_] : *receiver_;
      if (&next != &own) CopyRuns({own.State(layer)}, {next.State(layer)});
      states_done_.insert({layer, i});
    }
  }

  GoldenCase& golden_;
  const size_t workers_;
  std::mt19937 order_;
  std::unique_ptr<Sequence> receiver_;
  std::vector<std::unique_ptr<Sequence>> sequences_;
  std::vector<std::unique_ptr<Workspace>> workspaces_;
  std::vector<std::unique_ptr<SpanActivations>> activations_;
  std::vector<SpanForward> spans_;
  std::set<std::pair<int64_t, size_t>> kv_done_, states_done_;
};

std::string Bytes(const std::vector<absl::Span<std::byte>>& runs) {
  std::string bytes;
  for (const absl::Span<std::byte> run : runs) bytes.append(reinterpret_cast<const char*>(run.data()), run.size());
  return bytes;
}

void ExpectSameBytes(GoldenCase& golden, Sequence& got, Sequence& want) {
  for (int64_t layer = 0; layer < golden.model->layers(); ++layer) {
    if (golden.model->is_sparse(layer)) {
      const auto tokens = static_cast<int64_t>(golden.prompt().size());
      EXPECT_TRUE(Bytes(got.KvBytes(layer, 0, tokens)) == Bytes(want.KvBytes(layer, 0, tokens))) << "layer " << layer;
    } else {
      EXPECT_TRUE(Bytes({got.State(layer)}) == Bytes({want.State(layer)})) << "layer " << layer;
    }
  }
}

void ExpectGreedyContinuation(GoldenCase& golden, Sequence& sequence, const std::vector<float>& hidden) {
  const auto decode = *DecodeForward::Create(*golden.model, golden.ledger, 1);
  absl::StatusOr<std::vector<float>> logits = LogitsAfter(*decode, decode->FirstStep({hidden.data()}));
  for (size_t step = 0; step < golden.continuation().size(); ++step) {
    ASSERT_TRUE(logits.ok()) << logits.status();
    const int32_t token = Likeliest(*logits);
    ASSERT_EQ(token, golden.continuation()[step]) << "step " << step;
    logits =
        LogitsAfter(*decode, decode->Step({{&sequence, token, static_cast<int64_t>(golden.prompt().size() + step)}}));
  }
}

class SplitTest : public testing::TestWithParam<const char*> {};

TEST_P(SplitTest, AnyNumberOfWorkersAndOrderGivesTheSameBytes) {
  GoldenCase golden(GetParam());
  for (const auto& [span_tokens, worker_counts] : {std::pair(128, std::vector{1, 2, 3, 5}), {384, {2}}}) {
    SplitPrefill alone(golden, 1, span_tokens, 0);
    ASSERT_TRUE(alone.Run().ok());
    const std::vector<float> want_hidden = *alone.LastHidden();
    for (const int workers : worker_counts) {
      SCOPED_TRACE(absl::StrCat(workers, " workers, spans of ", span_tokens));
      SplitPrefill split(golden, workers, span_tokens, workers * 1000 + span_tokens);
      const absl::Status status = split.Run();
      ASSERT_TRUE(status.ok()) << status;
      const absl::StatusOr<std::vector<float>> hidden = split.LastHidden();
      ASSERT_TRUE(hidden.ok()) << hidden.status();
      EXPECT_EQ(*hidden, want_hidden);
      ExpectSameBytes(golden, split.receiver(), alone.receiver());
      // The receiver makes its tiers itself, so equal bytes are not all; the others have these same bytes.
      if (workers == worker_counts.back()) ExpectGreedyContinuation(golden, split.receiver(), *hidden);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, SplitTest, testing::ValuesIn(kGoldenNames),
                         [](const auto& instance) { return std::string(instance.param); });

}  // namespace
}  // namespace salamander::engine
