module throughline/internal/aead/emulate

go 1.26
