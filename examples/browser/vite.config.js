// The port is part of the page's origin, which routes.yaml lists: if it is in use, exit with an error.
export default {
  server: { host: "localhost", port: 5173, strictPort: true },
};
