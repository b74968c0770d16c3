"""`quarterdeck.v1.Jobs`: the use cases of `/v1` over gRPC, for internal tools. No rule of its own is made here."""
