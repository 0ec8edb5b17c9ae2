"""The rewards behind gRPC, for models that live on a machine of their own."""
