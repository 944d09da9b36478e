// Which target a device runs, and what descriptions are refused.

#include "runtime/target.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/runtime/toy_model.h"

namespace aoti {
namespace {

constexpr int kDriver = 12080;

DeviceProperties Device(int major, int minor) { return {0, 0, major, minor, "GPU", ""}; }

std::string Chosen(const ModelDescription& model, int major, int minor) {
  const TargetDescription* target = nullptr;
  const Status status = ChooseTarget(model, Device(major, minor), kDriver, &target);
  return status.ok() ? target->name : status.message();
}

// Targets of the toy model under other names and capabilities.
class Targets {
 public:
  struct Row {
    const char* name;
    int major;
    int minor;
    bool ptx;
  };

  explicit Targets(const std::vector<Row>& rows) : model_(testing::ToyModel().model) {
    for (const Row& row : rows) {
      targets_.push_back(model_.targets[0]);
      targets_.back().name = row.name;
      targets_.back().major = row.major;
      targets_.back().minor = row.minor;
      targets_.back().ptx = row.ptx;
    }
    model_.targets = {targets_.data(), targets_.size()};
  }
  Targets(const Targets&) = delete;
  Targets& operator=(const Targets&) = delete;

  ModelDescription& model() { return model_; }
  std::vector<TargetDescription>& targets() { return targets_; }

 private:
  ModelDescription model_;
  std::vector<TargetDescription> targets_;
};

TEST(ChooseTarget, PrefersMachineCodeOfTheGreatestMinor) {
  Targets t({{"compute_90", 9, 0, true}, {"sm_80", 8, 0, false}, {"sm_86", 8, 6, false}});
  EXPECT_EQ(Chosen(t.model(), 8, 0), "sm_80");
  EXPECT_EQ(Chosen(t.model(), 8, 5), "sm_80");
  EXPECT_EQ(Chosen(t.model(), 8, 6), "sm_86");
  EXPECT_EQ(Chosen(t.model(), 8, 9), "sm_86");
}

TEST(ChooseTarget, MachineCodeFromHopperOnIsForOneArchitecture) {
  Targets t({{"sm_100", 10, 0, false}, {"compute_90", 9, 0, true}, {"sm_120", 12, 0, false}});
  EXPECT_EQ(Chosen(t.model(), 10, 0), "sm_100");
  EXPECT_EQ(Chosen(t.model(), 10, 3), "compute_90");
  EXPECT_EQ(Chosen(t.model(), 12, 0), "sm_120");
  EXPECT_EQ(Chosen(t.model(), 12, 1), "compute_90");
}

TEST(ChooseTarget, TakesPtxOfTheGreatestCapabilityWhereNoMachineCodeFits) {
  Targets t({{"compute_75", 7, 5, true},
             {"compute_90", 9, 0, true},
             {"compute_80", 8, 0, true},
             {"sm_80", 8, 0, false}});
  EXPECT_EQ(Chosen(t.model(), 7, 5), "compute_75");
  EXPECT_EQ(Chosen(t.model(), 8, 0), "sm_80");
  EXPECT_EQ(Chosen(t.model(), 9, 0), "compute_90");
  EXPECT_EQ(Chosen(t.model(), 12, 0), "compute_90");
}

TEST(ChooseTarget, ListsWhatThereIsWhereNothingFits) {
  Targets t({{"sm_80", 8, 0, false}, {"sm_90", 9, 0, false}, {"compute_90", 9, 0, true}});
  EXPECT_EQ(Chosen(t.model(), 7, 5),
            "model toy has no code for device 0 (GPU, compute capability 7.5); it was built for "
            "sm_80 (machine code for compute capability 8.0), sm_90 (machine code for compute "
            "capability 9.0), compute_90 (PTX for compute capability 9.0 and later). Build it with "
            "a target for this device.");
  const TargetDescription* target = nullptr;
  EXPECT_EQ(ChooseTarget(t.model(), Device(7, 5), kDriver, &target).code(), Code::kNotFound);
  Targets none({});
  EXPECT_NE(Chosen(none.model(), 9, 0).find("it was built for no target"), std::string::npos);
}

TEST(ChooseTarget, RefusesAnOldDriver) {
  Targets t({{"sm_90", 9, 0, false}});
  t.targets()[0].driver = 12090;
  const TargetDescription* target = nullptr;
  const Status status = ChooseTarget(t.model(), Device(9, 0), kDriver, &target);
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_STREQ(status.message(),
               "the code of model toy for sm_90 on device 0 (GPU, compute capability 9.0) needs a "
               "driver for CUDA 12.9 or newer; this one supports CUDA 12.8");
}

TEST(CheckDescription, AcceptsTheToyModel) {
  const Status status = CheckDescription(testing::ToyModel().model);
  EXPECT_TRUE(status.ok()) << status.message();
}

TEST(CheckDescription, RefusesAnotherVersion) {
  ModelDescription model = testing::ToyModel().model;
  model.version = 99;
  const Status status = CheckDescription(model);
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_STREQ(status.message(),
               "the model's description has version 99, this runtime reads version 3: build the "
               "model and the runtime from the same release");
}

TEST(CheckDescription, RefusesAModelForAmds) {
  ModelDescription model = testing::ToyModel().model;
  model.version |= kHip;
  const Status status = CheckDescription(model);
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_STREQ(status.message(),
               "the model was built for AMD's GPUs, and this runtime calls CUDA: link the model "
               "with the runtime that it was built for");
}

TEST(CheckDescription, RefusesContradictions) {
  const auto expect = [](Targets& t, const std::string& what) {
    const Status status = CheckDescription(t.model());
    EXPECT_EQ(status.code(), Code::kInternal);
    EXPECT_EQ(status.message(), "the description of model toy is wrong: " + what);
  };
  const std::vector<WeightDescription> weights(testing::ToyModel().model.targets[0].weights.begin(),
                                               testing::ToyModel().model.targets[0].weights.end());
  const auto with_weight = [&](const WeightDescription& weight, const std::string& what) {
    Targets t({{"sm_90", 9, 0, false}});
    t.targets()[0].weights = {&weight, 1};
    expect(t, what);
  };
  WeightDescription weight = weights[0];
  weight.main = false;
  with_weight(weight,
              "target sm_90: the memory of weights is 256 + 256 bytes, and they need 0 + 0");
  weight = weights[0];
  weight.nbytes = 20;
  with_weight(weight, "target sm_90: weight bias has a wrong size or dtype");

  Targets kernels({{"sm_90", 9, 0, false}});
  KernelDescription kernel = kernels.targets()[0].kernels[0];
  kernel.threads = 0;
  kernels.targets()[0].kernels = {&kernel, 1};
  expect(kernels, "target sm_90: kernel double has no image, threads or blocks");

  Targets code({{"sm_90", 9, 0, false}});
  code.targets()[0].run = nullptr;
  expect(code, "target sm_90: no launch code");

  Targets tensors({{"sm_90", 9, 0, false}});
  TensorDescription tensor = tensors.model().inputs[0];
  const int64_t negative[] = {-4, 1};
  tensor.strides = {negative, 2};
  tensors.model().inputs = {&tensor, 1};
  expect(tensors, "x has a negative stride");
  tensor.strides = {negative, 1};
  expect(tensors, "x has too few strides");
}

}  // namespace
}  // namespace aoti
