import "userkeep/experimental/base-url";
