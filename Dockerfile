# One image with the four static programs, run by a user without rights:
#   docker build -t longshore .
#   docker run --rm longshore longshore-server --help
# The executors of both architectures are inside, so that a server or an agent of
# either can hand them out.
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev TARGETOS=linux TARGETARCH=amd64
ENV CGO_ENABLED=0
RUN mkdir -p /out/bin /out/data \
 && for program in server agent bucket; do \
      GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -ldflags "-s -w -X main.version=$VERSION" \
        -o /out/bin/longshore-$program ./cmd/$program || exit 1; \
    done \
 && for arch in amd64 arm64; do \
      GOOS=linux GOARCH=$arch go build -trimpath -ldflags "-s -w -X main.version=$VERSION" \
        -o /out/bin/longshore-executor-linux-$arch ./cmd/executor || exit 1; \
    done

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/bin/ /usr/local/bin/
COPY --from=build --chown=65532:65532 /out/data /var/lib/longshore
USER 65532:65532
ENV PATH=/usr/local/bin LONGSHORE_SERVER_DATA_DIR=/var/lib/longshore LONGSHORE_AGENT_WORKING_DIRECTORY=/var/lib/longshore
VOLUME /var/lib/longshore
EXPOSE 8480 8080
CMD ["/usr/local/bin/longshore-agent", "run"]
