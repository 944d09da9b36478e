// The program models/classify, linked with a toy model, on the simulated driver.

#include <sys/wait.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/image.h"

namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::StartsWith;

struct Result {
  int code = -1;
  std::string said;  // on both streams
};

// Runs the program with `arguments`, after `environment` as a shell spells it.
Result RunClassify(const std::string& arguments, const std::string& environment = "") {
  const std::string command = "env -u BUILD_WORKING_DIRECTORY LD_LIBRARY_PATH=simulator " +
                              environment + " tests/models/toy_classify " + arguments + " 2>&1";
  Result result;
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return result;
  char bytes[256];
  for (size_t got; (got = fread(bytes, 1, sizeof bytes, pipe)) != 0;) {
    result.said.append(bytes, got);
  }
  const int status = pclose(pipe);
  if (WIFEXITED(status)) result.code = WEXITSTATUS(status);
  return result;
}

std::string Write(const std::string& name, const std::string& content) {
  const std::string path = ::testing::TempDir() + "/" + name;
  std::ofstream(path, std::ios::binary) << content;
  return path;
}

// The input as raw bytes. Its first ten numbers are what the model says of the first image.
std::string Input(const std::vector<float>& logits) {
  std::string bytes;
  for (size_t i = 0; i < 24; ++i) {
    const uint16_t half = classify::ToHalf(i < logits.size() ? logits[i] : 0);
    bytes += static_cast<char>(half & 0xFF);
    bytes += static_cast<char>(half >> 8);
  }
  return Write("input.bin", bytes);
}

TEST(Classify, PrintsTheFiveMostLikelyClassesAndTheLatency) {
  const Result result = RunClassify("--runs 3 " + Input({0, 0, 4, 0, 0, 0, 0, 5}));
  EXPECT_EQ(result.code, 0);
  EXPECT_THAT(result.said, StartsWith(" 70.33 %  class 7\n"
                                      " 25.87 %  class 2\n"
                                      "  0.47 %  class 0\n"
                                      "  0.47 %  class 1\n"
                                      "  0.47 %  class 3\n"));
  EXPECT_THAT(result.said, HasSubstr("simulator, code for sm_90, batch 2: median of 3 runs: 0 us "
                                     "on the device, "));
}

TEST(Classify, NamesClassesByTheirLabels) {
  const std::string labels = Write("labels.txt", "tench\ngoldfish\nwhite shark\n");
  const Result result = RunClassify("--labels " + labels + " " + Input({0, 0, 4, 0, 0, 0, 0, 5}));
  EXPECT_EQ(result.code, 0);
  EXPECT_THAT(result.said, StartsWith(" 70.33 %  class 7\n 25.87 %  white shark\n"));
  EXPECT_THAT(result.said, HasSubstr("simulator, code for sm_90, batch 2: not timed\n"));
}

TEST(Classify, SaysInOneLineThatThereIsNoGpu) {
  const Result result = RunClassify(Input({}), "SIMULATOR_DEVICES=0");
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.said, MatchesRegex("classify: an NVIDIA GPU is needed: [^\n]*no CUDA-capable "
                                        "device is detected[^\n]*\n"));
}

TEST(Classify, SaysThatTheGpuIsOfAnotherKind) {
  const Result result = RunClassify(Input({}), "SIMULATOR_CAPABILITY=8.0");
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.said, MatchesRegex("classify: model toy_classifier has no code for device 0 "
                                        "[^\n]*\n"));
}

TEST(Classify, RefusesAnOutputThatIsNoNumber) {
  const Result result = RunClassify(Input({0, 1e9f}));
  EXPECT_EQ(result.code, 1);
  EXPECT_EQ(result.said, "classify: the model's output for class 1 is inf\n");
}

TEST(Classify, NamesAWrongFile) {
  const std::string path = Write("odd.bin", "neither");
  EXPECT_EQ(RunClassify(path).said,
            "classify: " + path +
                ": cannot be read as JPEG or PNG: unknown image type (nor is it a "
                "raw tensor of 48 bytes, float16 [2, 3, 2, 2])\n");
  EXPECT_EQ(RunClassify("/nonexistent").said,
            "classify: /nonexistent: cannot be opened: No such file or directory\n");
  EXPECT_EQ(RunClassify("--weights /nonexistent " + Input({})).said,
            "classify: /nonexistent: cannot be opened: No such file or directory\n");
}

TEST(Classify, ExplainsItsUse) {
  const Result help = RunClassify("--help");
  EXPECT_EQ(help.code, 0);
  EXPECT_THAT(help.said, StartsWith("usage: classify "));
  for (const char* arguments :
       {"", "a b", "--runs -1 a", "--runs", "--fast yes a", "--device x a"}) {
    const Result result = RunClassify(arguments);
    EXPECT_EQ(result.code, 2) << arguments;
    EXPECT_THAT(result.said, HasSubstr("\nusage: classify ")) << arguments;
  }
}

}  // namespace
