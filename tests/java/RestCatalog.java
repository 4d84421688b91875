// A REST catalog for tests: the protocol and the commits are Iceberg's own, this is the web server around them.
//
// Each warehouse that is asked for is a catalog of its own, behind a prefix of its own. The paths below /control, which
// only tests know, hand out credentials with a warehouse's tables, ask its callers for a token, and let its commits fail
// before or after they are done. It listens on a port that the system chooses and says which.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import jakarta.servlet.ServletException;
import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletRequestWrapper;
import jakarta.servlet.http.HttpServletResponse;
import jakarta.servlet.http.HttpServletResponseWrapper;
import java.io.IOException;
import java.io.InputStream;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Stream;
import org.apache.iceberg.HasTableOperations;
import org.apache.iceberg.TableOperations;
import org.apache.iceberg.catalog.Namespace;
import org.apache.iceberg.catalog.TableIdentifier;
import org.apache.iceberg.inmemory.InMemoryCatalog;
import org.apache.iceberg.inmemory.InMemoryFileIO;
import org.apache.iceberg.rest.RESTCatalogAdapter;
import org.apache.iceberg.rest.RESTCatalogServlet;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;
import org.eclipse.jetty.servlet.ServletContextHandler;
import org.eclipse.jetty.servlet.ServletHolder;

public class RestCatalog extends HttpServlet {
  private static final String CLIENT = "client_id=tidegate&client_secret=of-the-tests";

  private static final ObjectMapper JSON = new ObjectMapper();

  private final Map<String, Warehouse> byName = new ConcurrentHashMap<>();
  private final Map<String, Warehouse> byPrefix = new ConcurrentHashMap<>();
  private final Set<String> tokens = ConcurrentHashMap.newKeySet();
  private final AtomicInteger given = new AtomicInteger();

  public static void main(String[] arguments) throws Exception {
    Server server = new Server();
    ServerConnector connector = new ServerConnector(server);
    connector.setHost("127.0.0.1");
    // The port, 0 for any, and warehouses that outlive this process: a server that is started again has their tables.
    connector.setPort(arguments.length > 0 ? Integer.parseInt(arguments[0]) : 0);
    server.addConnector(connector);
    ServletContextHandler context = new ServletContextHandler();
    RestCatalog catalogs = new RestCatalog();
    for (int at = 1; at < arguments.length; at++) {
      catalogs.restored(arguments[at]);
    }
    context.addServlet(new ServletHolder(catalogs), "/*");
    server.setHandler(context);
    server.start();
    System.out.println("listening on http://127.0.0.1:" + connector.getLocalPort());
    server.join();
  }

  /** One catalog. */
  private static class Warehouse {
    final String prefix;
    final RESTCatalogServlet servlet;
    final Map<String, String> vended = new ConcurrentHashMap<>();
    final AtomicInteger failures = new AtomicInteger();
    final AtomicInteger commits = new AtomicInteger();
    volatile int status = 500;
    volatile boolean afterwards;
    volatile boolean guarded;

    final InMemoryCatalog catalog = new InMemoryCatalog();

    Warehouse(String name, String prefix) {
      this.prefix = prefix;
      catalog.initialize(prefix, Map.of("warehouse", name));
      this.servlet = new RESTCatalogServlet(new RESTCatalogAdapter(catalog));
    }

    /** Where its tables are kept, a file each: where the metadata is, and what it is. */
    Path kept;

    /** Has the tables that an earlier process kept, and keeps them from now on. */
    void restore(Path folder) throws IOException {
      kept = Files.createDirectories(folder);
      List<Path> tables;
      try (Stream<Path> all = Files.list(kept)) {
        tables = all.filter(path -> !path.toString().endsWith(".draft")).toList();
      }
      for (Path table : tables) {
        String[] parts = Files.readString(table).split("\n", 2);
        new InMemoryFileIO().addFile(parts[0], parts[1].getBytes(StandardCharsets.UTF_8));
        TableIdentifier identifier = TableIdentifier.parse(table.getFileName().toString());
        if (!catalog.namespaceExists(identifier.namespace())) {
          catalog.createNamespace(identifier.namespace());
        }
        catalog.registerTable(identifier, parts[0]);
      }
    }

    /** Keeps every table as it is, before anybody hears of it. */
    synchronized void keep() throws IOException {
      if (kept == null) {
        return;
      }
      for (Namespace namespace : catalog.listNamespaces()) {
        for (TableIdentifier identifier : catalog.listTables(namespace)) {
          TableOperations operations = ((HasTableOperations) catalog.loadTable(identifier)).operations();
          String location = operations.current().metadataFileLocation();
          Path draft = kept.resolve(identifier + ".draft");
          try (InputStream metadata = operations.io().newInputFile(location).newStream()) {
            String whole = new String(metadata.readAllBytes(), StandardCharsets.UTF_8);
            Files.writeString(draft, location + "\n" + whole);
          }
          Files.move(draft, kept.resolve(identifier.toString()), StandardCopyOption.REPLACE_EXISTING);
        }
      }
    }
  }

  private void restored(String name) throws IOException {
    Warehouse made = made(name);
    made.restore(Path.of(URI.create(name)).resolve(".catalog"));
    byName.put(name, made);
  }

  private Warehouse made(String name) {
    Warehouse made = new Warehouse(name, "of%2Ftests%7C" + byName.size());
    byPrefix.put(made.prefix, made);
    return made;
  }

  private Warehouse warehouse(HttpServletRequest request) {
    String name = request.getParameter("warehouse");
    return byName.computeIfAbsent(name == null ? "file:///nowhere" : name, this::made);
  }

  @Override
  protected void service(HttpServletRequest request, HttpServletResponse response)
      throws ServletException, IOException {
    String path = request.getRequestURI();
    if (path.startsWith("/control/")) {
      control(path.substring("/control/".length()), request, response);
    } else if (path.equals("/v1/oauth/tokens")) {
      String asked = new String(request.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
      if (asked.contains(CLIENT) && asked.contains("scope=catalog")) {
        String token = "token-" + given.incrementAndGet();
        tokens.add(token);
        say(response, 200, "{\"access_token\":\"" + token + "\",\"token_type\":\"bearer\",\"expires_in\":3600}");
      } else {
        say(response, 401, "{\"error\":\"invalid_client\",\"error_description\":\"nobody knows this client\"}");
      }
    } else if (path.equals("/v1/config")) {
      Warehouse warehouse = warehouse(request);
      if (admits(warehouse, request, response)) {
        say(response, 200, "{\"defaults\":{},\"overrides\":{\"prefix\":\"" + warehouse.prefix + "\"}}");
      }
    } else {
      String[] parts = path.split("/", 4);
      Warehouse warehouse = parts.length == 4 ? byPrefix.get(parts[2]) : null;
      if (warehouse == null) {
        say(response, 404, "no such page");
      } else if (admits(warehouse, request, response)) {
        serve(warehouse, "/v1/" + parts[3], request, response);
      }
    }
  }

  private boolean admits(Warehouse warehouse, HttpServletRequest request, HttpServletResponse response)
      throws IOException {
    String shown = request.getHeader("Authorization");
    if (!warehouse.guarded || (shown != null && tokens.contains(shown.replace("Bearer ", "")))) {
      return true;
    }
    say(response, 401, error("NotAuthorizedException", "nobody knows this token", 401));
    return false;
  }

  private static void serve(
      Warehouse warehouse, String path, HttpServletRequest request, HttpServletResponse response)
      throws ServletException, IOException {
    HttpServletRequest plain =
        new HttpServletRequestWrapper(request) {
          @Override
          public String getRequestURI() {
            return path;
          }
        };
    boolean isCommit = request.getMethod().equals("POST") && path.contains("/tables/");
    if (isCommit) {
      warehouse.commits.incrementAndGet();
    }
    boolean fails = isCommit && warehouse.failures.getAndUpdate(left -> Math.max(0, left - 1)) > 0;
    StringWriter answer = new StringWriter();
    AtomicInteger status = new AtomicInteger(200);
    if (!fails || warehouse.afterwards) {
      PrintWriter writer = new PrintWriter(answer);
      warehouse.servlet.service(
          plain,
          new HttpServletResponseWrapper(response) {
            @Override
            public PrintWriter getWriter() {
              return writer;
            }

            // Iceberg's servlet says 500 after it has answered with an error: on the wire that comes too late.
            @Override
            public void setStatus(int said) {
              status.compareAndSet(200, said);
            }
          });
      writer.flush();
      if (!request.getMethod().equals("GET")) {
        warehouse.keep();
      }
    }
    if (fails) {
      say(response, warehouse.status, error("InternalServerError", "asked for by a test", warehouse.status));
    } else {
      say(response, status.get(), withVended(warehouse.vended, answer.toString()));
    }
  }

  /** The answer, with credentials where it describes a table. */
  private static String withVended(Map<String, String> vended, String answer) throws IOException {
    JsonNode document = vended.isEmpty() || answer.isEmpty() ? null : JSON.readTree(answer);
    if (document == null || !document.has("metadata")) {
      return answer;
    }
    ((ObjectNode) document).set("config", JSON.valueToTree(vended));
    return document.toString();
  }

  private void control(String what, HttpServletRequest request, HttpServletResponse response) throws IOException {
    Warehouse warehouse = warehouse(request);
    switch (what) {
      case "vend":
        Properties properties = new Properties();
        properties.load(request.getInputStream());
        properties.forEach((key, value) -> warehouse.vended.put((String) key, (String) value));
        break;
      case "guard":
        warehouse.guarded = true;
        tokens.add(request.getParameter("token"));
        break;
      case "revoke":
        tokens.clear();
        break;
      case "fail":
        warehouse.status = Integer.parseInt(request.getParameter("status"));
        warehouse.afterwards = "true".equals(request.getParameter("afterwards"));
        warehouse.failures.set(Integer.parseInt(request.getParameter("times")));
        break;
      default:
        break;
    }
    say(response, 200, "{\"commits\":" + warehouse.commits.get() + ",\"failures\":" + warehouse.failures.get() + "}");
  }

  private static String error(String type, String message, int code) {
    return "{\"error\":{\"type\":\"" + type + "\",\"message\":\"" + message + "\",\"code\":" + code + "}}";
  }

  private static void say(HttpServletResponse response, int status, String body) throws IOException {
    response.setStatus(status);
    response.setContentType("application/json");
    response.getWriter().write(body);
    response.getWriter().flush();
  }
}
