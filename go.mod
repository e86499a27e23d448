module throughline

go 1.26.0

require (
	github.com/gaissmai/bart v0.30.0
	golang.org/x/crypto v0.58.0
	golang.org/x/sys v0.49.0
	pgregory.net/rapid v1.3.0
)
