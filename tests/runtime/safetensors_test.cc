// Files that are wrong in each way a safetensors file can be.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/weights.h"
#include "tests/runtime/toy_model.h"

namespace aoti {
namespace {

using testing::Safetensors;
using testing::SafetensorsOf;

Status Open(const std::string& bytes, std::unique_ptr<SafetensorsFile>* file) {
  // A copy of exactly this size, so that a sanitizer sees each read past its end.
  static std::unique_ptr<char[]> copy;
  copy = std::make_unique<char[]>(bytes.size());
  bytes.copy(copy.get(), bytes.size());
  return SafetensorsFile::Open(WrapMemory(copy.get(), bytes.size()), "file", file);
}

void ExpectFault(const std::string& bytes, const std::string& message,
                 Code code = Code::kDataLoss) {
  std::unique_ptr<SafetensorsFile> file;
  const Status status = Open(bytes, &file);
  EXPECT_EQ(status.code(), code);
  EXPECT_EQ(status.message(), message);
  EXPECT_EQ(file, nullptr);
}

std::string Entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return "{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}";
}

std::string One(const std::string& entry, const std::string& data) {
  return SafetensorsOf("{\"a\":" + entry + "}", data);
}

TEST(Safetensors, ReadsNamesTypesShapesAndBytes) {
  std::unique_ptr<SafetensorsFile> file;
  const Status status = Open(Safetensors({{"b", {1, 2, 3}}, {"a", {4}}}), &file);
  ASSERT_TRUE(status.ok()) << status.message();
  ASSERT_EQ(file->tensors().size(), 2u);
  const SafetensorsFile::Tensor& b = file->tensors().at("b");
  EXPECT_EQ(b.dtype, "F32");
  EXPECT_EQ(b.shape, std::vector<int64_t>{3});
  ASSERT_EQ(b.nbytes, 12u);
  float values[3];
  ASSERT_TRUE(file->Read(b.offset, b.nbytes, values).ok());
  EXPECT_EQ(values[2], 3);
}

TEST(Safetensors, AcceptsScalarsEmptyTensorsAndTypesItDoesNotKnow) {
  std::unique_ptr<SafetensorsFile> file;
  const std::string header = "{\"e\":" + Entry("F32", "[0,5]", "[4,4]") +
                             ",\"s\":" + Entry("F32", "[]", "[0,4]") +
                             ",\"f4\":" + Entry("F4", "[3]", "[4,6]") + "}";
  const Status status = Open(SafetensorsOf(header, "123456"), &file);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(file->tensors().at("s").nbytes, 4u);
  EXPECT_EQ(file->tensors().at("e").nbytes, 0u);
}

TEST(Safetensors, RefusesWhatIsNoSafetensorsFile) {
  ExpectFault("", "file: is no safetensors file: it has only 0 bytes");
  ExpectFault("1234567", "file: is no safetensors file: it has only 7 bytes");
  ExpectFault(std::string(8, '\xFF'),
              "file: is no safetensors file: its header would have 18446744073709551615 bytes, and "
              "100000000 is the most");
  ExpectFault(SafetensorsOf("not json", ""), "file: its header is not valid JSON");
  ExpectFault(SafetensorsOf("", ""), "file: its header is not valid JSON");
  ExpectFault(SafetensorsOf("{\"a\":\"\xFF\"}", ""), "file: its header is not valid JSON");
  ExpectFault(SafetensorsOf("{} {}", ""), "file: its header is not valid JSON");
  ExpectFault(SafetensorsOf("[]", ""), "file: its header is not a JSON object");
  ExpectFault(SafetensorsOf(std::string(100000, '['), ""), "file: its header is not valid JSON");
}

TEST(Safetensors, RefusesATruncatedFile) {
  const std::string whole = Safetensors({{"a", {1, 2}}});
  for (size_t size = 0; size < whole.size(); ++size) {
    std::unique_ptr<SafetensorsFile> file;
    const Status status = Open(whole.substr(0, size), &file);
    EXPECT_EQ(status.code(), Code::kDataLoss) << size;
  }
  ExpectFault(whole.substr(0, 20), "file: is truncated: its header should have " +
                                       std::to_string(whole.size() - 16) +
                                       " bytes, and only 12 follow");
  ExpectFault(whole.substr(0, whole.size() - 1),
              "file: tensor a: its data ends at byte 8 of 7: the file is truncated or its header "
              "wrong");
}

TEST(Safetensors, RefusesMalformedEntries) {
  ExpectFault(One("5", ""), "file: tensor a: its entry is not an object");
  ExpectFault(One("{\"shape\":[],\"data_offsets\":[0,0]}", ""), "file: tensor a: has no dtype");
  ExpectFault(One("{\"dtype\":\"F32\",\"data_offsets\":[0,0]}", ""),
              "file: tensor a: has no shape");
  ExpectFault(One("{\"dtype\":\"F32\",\"shape\":[]}", ""),
              "file: tensor a: has no pair of data_offsets");
  ExpectFault(One(Entry("F32", "[]", "[0]"), ""), "file: tensor a: has no pair of data_offsets");
  for (const char* shape : {"[-1]", "[1.0]", "[\"1\"]", "[18446744073709551615]", "[1e400]"}) {
    std::unique_ptr<SafetensorsFile> file;
    EXPECT_EQ(Open(One(Entry("F32", shape, "[0,4]"), "1234"), &file).code(), Code::kDataLoss);
  }
  ExpectFault(One(Entry("F32", "[-1]", "[0,4]"), "1234"),
              "file: tensor a: a size in its shape is not a natural number");
  ExpectFault(One(Entry("F32", "[1]", "[4,0]"), "1234"),
              "file: tensor a: its data_offsets are not two ascending natural numbers");
  ExpectFault(One(Entry("F32", "[1]", "[-4,0]"), "1234"),
              "file: tensor a: its data_offsets are not two ascending natural numbers");
}

TEST(Safetensors, RefusesShapesThatDoNotFitTheData) {
  ExpectFault(One(Entry("F32", "[2]", "[0,4]"), "1234"),
              "file: tensor a: its shape [2] of F32 does not make the 4 bytes of its data_offsets");
  // The product overflows to 4.
  ExpectFault(One(Entry("F32", "[4611686018427387905,1]", "[0,4]"), "1234"),
              "file: tensor a: its shape [4611686018427387905, 1] of F32 does not make the 4 bytes "
              "of its data_offsets");
}

TEST(Safetensors, RefusesDuplicatesOverlapsAndGaps) {
  const std::string first = Entry("U8", "[2]", "[0,2]");
  ExpectFault(SafetensorsOf("{\"a\":" + first + ",\"a\":" + first + "}", "12"),
              "file: tensor a: occurs twice in the header");
  ExpectFault(
      SafetensorsOf("{\"a\":" + first + ",\"b\":" + Entry("U8", "[2]", "[1,3]") + "}", "123"),
      "file: tensors a and b overlap");
  ExpectFault(
      SafetensorsOf("{\"a\":" + first + ",\"b\":" + Entry("U8", "[2]", "[3,5]") + "}", "12345"),
      "file: no tensor covers the 1 bytes before tensor b");
  ExpectFault(SafetensorsOf("{\"a\":" + first + "}", "12345"),
              "file: no tensor covers its last 3 bytes");
}

TEST(Safetensors, NeverReachesPastTheFileWhateverAByteIs) {
  const std::string whole = Safetensors({{"a", {1, 2}}, {"b", {3}}});
  int accepted = 0;
  for (size_t at = 0; at < whole.size(); ++at) {
    for (const int byte : {0, 1, 9, 34, 44, 45, 48, 57, 91, 93, 123, 125, 127, 128, 255}) {
      std::string bytes = whole;
      bytes[at] = static_cast<char>(byte);
      std::unique_ptr<SafetensorsFile> file;
      if (!Open(bytes, &file).ok()) continue;
      ++accepted;  // a byte of data, say
      for (const auto& [name, tensor] : file->tensors()) {
        std::vector<char> data(tensor.nbytes);
        EXPECT_TRUE(file->Read(tensor.offset, tensor.nbytes, data.data()).ok()) << name;
      }
    }
  }
  EXPECT_GT(accepted, 0);
}

TEST(Safetensors, ComparesWithTheWeightsOfAModel) {
  const Table<WeightDescription> weights = testing::ToyModel().model.targets[0].weights;
  const auto check = [&](const std::string& bytes) -> Status {
    std::unique_ptr<SafetensorsFile> file;
    const Status status = Open(bytes, &file);
    EXPECT_TRUE(status.ok()) << status.message();
    for (const WeightDescription& weight : weights) {
      const SafetensorsFile::Tensor* tensor = nullptr;
      AOTI_RETURN_IF_ERROR(file->Find(weight, &tensor));
      EXPECT_EQ(tensor, &file->tensors().at(weight.name));
    }
    return Status();
  };
  EXPECT_TRUE(check(testing::ToyWeights({1, 2, 3, 4}, {5, 6, 7, 8})).ok());
  const Status missing = check(Safetensors({{"bias", {1, 2, 3, 4}}}));
  EXPECT_EQ(missing.code(), Code::kNotFound);
  EXPECT_STREQ(missing.message(), "file: has no tensor scale (F32[4])");
  const Status shape = check(testing::ToyWeights({1, 2, 3}, {5, 6, 7, 8}));
  EXPECT_EQ(shape.code(), Code::kInvalidArgument);
  EXPECT_STREQ(shape.message(), "file: tensor scale: expected F32[4], got F32[3]");
}

class SafetensorsOnDisk : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = ::testing::TempDir() + "safetensors_test." + std::to_string(getpid());
  }
  void TearDown() override { unlink(path_.c_str()); }

  void Write(const std::string& bytes) {
    std::FILE* file = std::fopen(path_.c_str(), "wb");
    ASSERT_NE(file, nullptr);
    ASSERT_EQ(std::fwrite(bytes.data(), 1, bytes.size(), file), bytes.size());
    ASSERT_EQ(std::fclose(file), 0);
  }

  std::string path_;
};

TEST_F(SafetensorsOnDisk, ReadsAFile) {
  Write(Safetensors({{"a", {1, 2}}}));
  std::unique_ptr<ByteSource> source;
  ASSERT_TRUE(OpenFile(path_, &source).ok());
  std::unique_ptr<SafetensorsFile> file;
  ASSERT_TRUE(SafetensorsFile::Open(std::move(source), path_, &file).ok());
  float values[2];
  ASSERT_TRUE(file->Read(file->tensors().at("a").offset, 8, values).ok());
  EXPECT_EQ(values[1], 2);
}

TEST_F(SafetensorsOnDisk, ReportsAFileThatShrinks) {
  Write(Safetensors({{"a", {1, 2}}}));
  std::unique_ptr<ByteSource> source;
  ASSERT_TRUE(OpenFile(path_, &source).ok());
  ASSERT_EQ(truncate(path_.c_str(), 10), 0);
  char byte[20];
  const Status status = source->Read(0, sizeof byte, byte);
  EXPECT_EQ(status.code(), Code::kDataLoss);
  EXPECT_EQ(status.message(), path_ + ": was cut short while it was read");
}

TEST_F(SafetensorsOnDisk, NamesWhatIsNotThereOrNotAFile) {
  std::unique_ptr<ByteSource> source;
  Status status = OpenFile(path_, &source);
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_EQ(status.message(), path_ + ": cannot be opened: No such file or directory");
  status = OpenFile("/dev/null", &source);
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_STREQ(status.message(), "/dev/null: is not a regular file");
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  status = OpenFile(path_, &source);  // must not wait for a writer
  EXPECT_EQ(status.message(), path_ + ": is not a regular file");
}

}  // namespace
}  // namespace aoti
