// Whatever listens in this process does so on loopback only, and says on which port.
const net = require("node:net");

const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
    this.once("listening", () => console.error(`bound to ${this.address().port}`));
    return listen.call(this, port, "127.0.0.1", ...rest);
};
