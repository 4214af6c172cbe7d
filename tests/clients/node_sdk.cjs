// Scenarios for @azure/storage-blob, run by test_node_sdk.py as: node node_sdk.cjs SCENARIO CONTAINER
//
// Each scenario works in a container that the Python side made, checks what it sees with node:assert, and prints one
// JSON object for the Python side to compare with what another client sees. Any failed check ends in a non-zero exit.
"use strict";
// Debian 12 has Node 18, which keeps this behind a flag; the SDK's own libraries take it for granted.
globalThis.crypto ??= require("node:crypto").webcrypto;
const assert = require("node:assert/strict");
const { Readable } = require("node:stream");
const {
  BlobServiceClient,
  BlobSASPermissions,
  ContainerClient,
  ContainerSASPermissions,
} = require("@azure/storage-blob");

const KIB = 1024;
const service = BlobServiceClient.fromConnectionString(process.env.BLOB_CONNECTION_STRING, {
  retryOptions: { maxTries: 1 },
});

// Bytes that both sides can compute: byte i is (i * 31 + seed) mod 251.
function pattern(seed, size) {
  const bytes = Buffer.alloc(size);
  for (let i = 0; i < size; i++) bytes[i] = (i * 31 + seed) % 251;
  return bytes;
}

async function bytesOf(response) {
  const parts = [];
  for await (const part of response.readableStreamBody) parts.push(part);
  return Buffer.concat(parts);
}

async function all(iterator) {
  const items = [];
  for await (const item of iterator) items.push(item);
  return items;
}

async function refused(promise, status, code) {
  await assert.rejects(promise, (error) => {
    assert.deepEqual([error.statusCode, error.code ?? error.details?.errorCode], [status, code]);
    return true;
  });
}

const scenarios = {
  // Upload in parallel blocks and from a stream, with everything that can be set; download whole, in ranges, parallel.
  async transfer(container) {
    const data = pattern(1, 900 * KIB + 5);
    const blob = container.getBlockBlobClient("dir/a b+%ü.bin");
    await blob.uploadData(data, {
      blockSize: 128 * KIB,
      maxSingleShotSize: 64 * KIB,
      concurrency: 4,
      metadata: { project: "edge", two: "b c" },
      tags: { site: "plant 7" },
      tier: "Cool",
      blobHTTPHeaders: { blobContentType: "application/x-node", blobCacheControl: "no-cache" },
    });
    assert.deepEqual(await blob.downloadToBuffer(0, undefined, { blockSize: 100 * KIB, concurrency: 4 }), data);
    const part = await blob.download(1000, 5000);
    assert.deepEqual(await bytesOf(part), data.subarray(1000, 6000));
    assert.equal(part.contentRange, `bytes 1000-5999/${data.length}`);
    const checked = await blob.download(0, 1000, { rangeGetContentMD5: true });
    assert.equal(checked.contentMD5.length, 16);
    const crc = await blob.download(0, 1000, { rangeGetContentCrc64: true });
    assert.equal(crc.contentCrc64.length, 8);
    await container
      .getBlockBlobClient("streamed")
      .uploadStream(Readable.from([data.subarray(0, 300000), data.subarray(300000)]), 128 * KIB, 3);
    await container.getBlockBlobClient("empty").upload("", 0);
    const names = (await all(container.listBlobsFlat())).map((item) => item.name);
    return { names, length: data.length };
  },

  async listing(container) {
    for (const name of ["a/1", "a/2", "b", "c/d/3"]) {
      await container.getBlockBlobClient(name).upload(name, name.length, { metadata: { n: name.slice(-1) } });
    }
    const pages = [];
    for await (const page of container.listBlobsFlat({ includeMetadata: true }).byPage({ maxPageSize: 3 })) {
      pages.push(page.segment.blobItems.map((item) => [item.name, item.metadata.n]));
    }
    const tree = (await all(container.listBlobsByHierarchy("/"))).map((item) => `${item.kind} ${item.name}`);
    const containers = (await all(service.listContainers({ prefix: container.containerName }))).map((c) => c.name);
    assert.deepEqual(containers, [container.containerName]);
    return { pages, tree };
  },

  async conditionsAndLeases(container) {
    const blob = container.getBlockBlobClient("x");
    const first = await blob.upload("one", 3);
    await refused(blob.upload("two", 3, { conditions: { ifNoneMatch: "*" } }), 409, "BlobAlreadyExists");
    await refused(blob.upload("two", 3, { conditions: { ifMatch: '"0x1"' } }), 412, "ConditionNotMet");
    await blob.upload("two", 3, { conditions: { ifMatch: first.etag } });
    const lease = blob.getBlobLeaseClient();
    const { leaseId } = await lease.acquireLease(15);
    await refused(blob.setMetadata({ a: "b" }), 412, "LeaseIdMissing");
    await blob.setMetadata({ a: "b" }, { conditions: { leaseId } });
    await lease.renewLease();
    await lease.releaseLease();
    const containerLease = container.getBlobLeaseClient();
    await containerLease.acquireLease(-1);
    await refused(container.delete(), 412, "LeaseIdMissing");
    await containerLease.breakLease(0);
    const properties = await blob.getProperties();
    assert.equal(properties.leaseState, "available");
    return { metadata: properties.metadata };
  },

  async snapshotsTagsTiers(container) {
    const blob = container.getBlockBlobClient("x");
    await blob.upload("one", 3, { tags: { mark: container.containerName } });
    const { snapshot } = await blob.createSnapshot();
    await blob.upload("two", 3, { tags: { mark: container.containerName } });
    assert.equal((await bytesOf(await blob.withSnapshot(snapshot).download())).toString(), "one");
    await refused(blob.delete(), 409, "SnapshotsPresent");
    assert.deepEqual((await blob.getTags()).tags, { mark: container.containerName });
    const found = await all(service.findBlobsByTags(`mark = '${container.containerName}'`));
    assert.deepEqual(found.map((item) => item.name), ["x"]);
    await blob.setTags({ later: "1" });
    await blob.setAccessTier("Cold");
    const items = await all(container.listBlobsFlat({ includeSnapshots: true, includeTags: true }));
    return { items: items.map((item) => [item.name, Boolean(item.snapshot), item.properties.accessTier ?? null]) };
  },

  async copies(container) {
    const source = container.getBlockBlobClient("source +%.bin");
    await source.uploadData(pattern(2, 200 * KIB), { metadata: { from: "here" } });
    const url = await source.generateSasUrl({
      permissions: BlobSASPermissions.parse("r"),
      expiresOn: new Date(Date.now() + 3600e3),
    });
    const poller = await container.getBlobClient("copied").beginCopyFromURL(source.url);
    assert.equal((await poller.pollUntilDone()).copyStatus, "success");
    assert.equal((await container.getBlobClient("synced").syncCopyFromURL(url)).copyStatus, "success");
    await container.getBlockBlobClient("put").syncUploadFromURL(url);
    const pieces = container.getBlockBlobClient("pieces");
    const ids = ["0001", "0002"].map((id) => Buffer.from(id).toString("base64"));
    await pieces.stageBlockFromURL(ids[0], url, 0, 100 * KIB);
    await pieces.stageBlockFromURL(ids[1], url, 100 * KIB, 100 * KIB);
    assert.equal((await pieces.getBlockList("uncommitted")).uncommittedBlocks.length, 2);
    await pieces.commitBlockList(ids);
    return { length: 200 * KIB };
  },

  async batch(container) {
    const clients = Array.from({ length: 12 }, (_, i) => container.getBlockBlobClient(`dir/x ${i}+`));
    await Promise.all(clients.map((client) => client.upload("x", 1)));
    const batch = service.getBlobBatchClient();
    const tiers = await batch.setBlobsAccessTier(clients, "Cool");
    const deleted = await batch.deleteBlobs([...clients.slice(0, 10), container.getBlobClient("missing")]);
    const left = await all(container.listBlobsFlat());
    return {
      tiers: [tiers.subResponsesSucceededCount, tiers.subResponsesFailedCount],
      deleted: [deleted.subResponsesSucceededCount, deleted.subResponsesFailedCount],
      left: left.map((item) => [item.name, item.properties.accessTier]),
    };
  },

  // A container SAS made by this SDK lets in what it names, and nothing else.
  async sas(container) {
    const url = await container.generateSasUrl({
      permissions: ContainerSASPermissions.parse("rcl"),
      expiresOn: new Date(Date.now() + 3600e3),
    });
    const guest = new ContainerClient(url, undefined, { retryOptions: { maxTries: 1 } });
    await guest.getBlockBlobClient("a b.txt").upload("guest", 5);
    assert.equal((await bytesOf(await guest.getBlobClient("a b.txt").download())).toString(), "guest");
    await refused(guest.getBlobClient("a b.txt").delete(), 403, "AuthorizationPermissionMismatch");
    await refused(guest.getBlobClient("none").download(), 404, "BlobNotFound");
    const policy = { accessPolicy: { permissions: "r", expiresOn: new Date(Date.now() + 3600e3) }, id: "readers" };
    await container.setAccessPolicy(undefined, [policy]);
    return { policies: (await container.getAccessPolicy()).signedIdentifiers.map((one) => one.id) };
  },
};

const [scenario, name] = process.argv.slice(2);
scenarios[scenario](service.getContainerClient(name)).then(
  (result) => process.stdout.write(JSON.stringify(result)),
  (error) => {
    process.stderr.write(`${error.stack}\n${JSON.stringify({ code: error.code, status: error.statusCode })}\n`);
    process.exit(1);
  },
);
